"""The Python door: defaults, media and iterators over the C++ engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from vila_engine import _core
from vila_engine._core import InvalidArgument
from vila_engine.media import Picture, load_image, load_video

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
    from vila_engine.media import ImageLike, VideoLike

FloatArray = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length", "cancelled"]


class ChatMessage(TypedDict):
    """One message; `<image>` and `<video>` in the content stand for the next picture and video."""

    role: Literal["system", "user", "assistant"]
    content: str


Query = str | Sequence[ChatMessage]


class Sampling(TypedDict, total=False):
    """How tokens are chosen; everything is optional.

    max_new_tokens (512); temperature (0.0: greedy); top_p (1.0); top_k (0: off); min_p (0.0); repetition_penalty (1.0);
    seed (0); stop (strings that end the answer); ignore_eos (False); num_beams (1: no beam search).
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int
    stop: Sequence[str]
    ignore_eos: bool
    num_beams: int


@dataclass(frozen=True)
class Piece:
    """One generated token.

    Attributes:
        text: What became complete with it: whole characters, possibly none.
        token_id: Its id.
        logprob: Its natural-log probability under the model's unmodified distribution.
    """

    text: str
    token_id: int
    logprob: float


@dataclass(frozen=True)
class Usage:
    """Token counts. `prompt_tokens` includes `image_tokens`; `cached_tokens` of them were computed before."""

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Wall times in seconds: loading the model, encoding pictures, running the prompt, generating."""

    load: float
    image: float
    prefill: float
    decode: float


@dataclass(frozen=True)
class Result:
    """A finished answer.

    Attributes:
        text: The answer without white space at its ends.
        token_ids: All generated ids, an end-of-sequence token included.
        finish_reason: "stop", "length" or "cancelled".
        usage: Token counts.
        timings: Wall times.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class Stream:
    """An answer in the making: iterate to pull pieces; `cancel()` from any thread, or close it, to stop early."""

    def __init__(self, model: Model, session: _core.Session, generation: _core.Generation) -> None:
        self._model = model
        self._session: _core.Session | None = session
        self._generation = generation
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._on_end: list[Any] = []

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            event = next(self._generation)
        except BaseException:
            self.close()
            raise
        self._texts.append(event.text)
        self._ids.append(event.id)
        return Piece(event.text, event.id, event.logprob)

    def cancel(self) -> None:
        """Stops at the next layer or token; the iteration then ends. May be called from any thread."""
        self._generation.cancel()

    def close(self) -> None:
        """Ends the answer and frees its session."""
        session, self._session = self._session, None
        if session is None:
            return
        self._generation.close()
        self._model._give_back(session)
        for action in self._on_end:
            action(self)

    def result(self) -> Result:
        """Pulls what is left and returns the whole answer."""
        for _ in self:
            pass
        stats = self._generation.stats
        reason = self._generation.finish_reason or "cancelled"
        return Result(
            text="".join(self._texts).strip(),
            token_ids=list(self._ids),
            finish_reason=reason,  # type: ignore[arg-type]  # one of the three once closed
            usage=Usage(stats.prompt_tokens, stats.image_tokens, stats.cached_tokens, stats.completion_tokens),
            timings=Timings(
                self._model.info["load_seconds"], stats.image_seconds, stats.prefill_seconds, stats.decode_seconds
            ),
        )

    @property
    def text(self) -> str:
        """What was generated so far, without white space at its ends."""
        return "".join(self._texts).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Model:
    """A loaded model; use `load()`. Safe to use from several threads; each open answer has a session of its own."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine: _core.Engine | None = engine
        self._idle: _core.Session | None = None  # keeps the last prompt's keys and values for a similar next one
        self._lock = threading.Lock()
        self.info: dict[str, Any] = json.loads(engine.info)
        """Architecture, weight formats and bytes, chat template, kernels, threads, memory kind, load seconds."""

    def generate(
        self,
        query: Query,
        *,
        images: Sequence[ImageLike] = (),
        videos: Sequence[VideoLike] = (),
        num_video_frames: int | None = None,
        system: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Result:
        r"""Answers a query.

        Args:
            query: Text, or messages. `<image>` marks where a picture belongs and `<video>` where a video's frames do;
                without any mark the media come first.
            images: Pictures in the order of their marks: path, bytes, Pillow image or uint8 array.
            videos: Videos in the order of their marks: path or list of frames.
            num_video_frames: Frames per video; default: what the checkpoint says.
            system: System text; default: the chat template's own.
            **sampling: See `Sampling`.

        Returns:
            The answer.

        Raises:
            InvalidArgument: wrong arguments, or another number of media than of marks.
            CapacityError: the prompt is longer than the context.
            IoError: a file cannot be read.
        """
        stream = self.stream(
            query, images=images, videos=videos, num_video_frames=num_video_frames, system=system, **sampling
        )
        with stream:
            return stream.result()

    def stream(
        self,
        query: Query,
        *,
        images: Sequence[ImageLike] = (),
        videos: Sequence[VideoLike] = (),
        num_video_frames: int | None = None,
        system: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream:
        """As `generate`, piece by piece. Errors in the arguments are raised at once, not at the first piece."""
        pictures = [load_image(image) for image in images]
        clips = self._clips(videos, num_video_frames)
        return self._start(_messages(query), pictures, clips, system, sampling)

    def chat(self, system: str | None = None, *, num_video_frames: int | None = None) -> Chat:
        """A dialogue of several turns; nothing that was seen is computed again."""
        return Chat(self, system, num_video_frames)

    def preprocess(self, image: ImageLike) -> FloatArray:
        """The vision tower's input: f32 [1, 3, S, S], S2 models at the largest scale."""
        return self._core.preprocess(load_image(image))

    def vision_features(self, image: ImageLike) -> FloatArray:
        """The selected hidden state of the tower, after the S2 merge: f32 [P, Cv]."""
        return self._core.vision_features(load_image(image))

    def encode_image(self, image: ImageLike) -> FloatArray:
        """The rows that stand for a picture in the language model: f32 [tokens, C]."""
        return self._core.encode_image(load_image(image))

    def prompt_text(
        self,
        query: Query,
        *,
        images: Sequence[Any] | int = (),
        videos: Sequence[int] = (),
        system: str | None = None,
        reference_compat: bool = False,
    ) -> str:
        """The rendered prompt with `<image>` marks; pictures are only counted, videos are numbers of frames."""
        return self._core.prompt_text(
            _messages(query), images=_count(images), videos=videos, system=system, reference_compat=reference_compat
        )

    def prompt_ids(
        self,
        query: Query,
        *,
        images: Sequence[Any] | int = (),
        videos: Sequence[int] = (),
        system: str | None = None,
        reference_compat: bool = False,
    ) -> list[int]:
        """The prompt's ids, -200 for a picture; pictures are only counted, videos are numbers of frames."""
        return self._core.prompt_ids(
            _messages(query), images=_count(images), videos=videos, system=system, reference_compat=reference_compat
        )

    def logits(
        self,
        query: Query,
        *,
        images: Sequence[ImageLike] = (),
        videos: Sequence[VideoLike] = (),
        num_video_frames: int | None = None,
        system: str | None = None,
        reference_compat: bool = False,
    ) -> FloatArray:
        """Logits at every position of the prompt, pictures' rows included: f32 [T, V]."""
        return self._core.logits(
            _messages(query),
            images=[load_image(image) for image in images],
            videos=self._clips(videos, num_video_frames),
            system=system,
            reference_compat=reference_compat,
        )

    @property
    def tokenizer(self) -> _core.Tokenizer:
        """The model's tokenizer: `encode(text)` and `decode(ids)`."""
        return self._core.tokenizer

    def close(self) -> None:
        """Frees the weights as soon as the last open answer ends; the object cannot be used any more."""
        with self._lock:
            self._engine = None
            self._idle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vila_engine.Model {self.info['source'] or 'unnamed'}, {self.info['isa']}>"

    @property
    def _core(self) -> _core.Engine:
        if self._engine is None:
            raise InvalidArgument("[model] expected an open model, got a closed one")
        return self._engine

    def _clips(self, videos: Sequence[VideoLike], n_frames: int | None) -> list[list[Picture]]:
        n_frames = self.info["n_video_frames"] if n_frames is None else n_frames
        return [load_video(video, n_frames) for video in videos]

    def _take(self) -> _core.Session:
        with self._lock:
            session, self._idle = self._idle, None
        return session or self._core.new_session()

    def _give_back(self, session: _core.Session) -> None:
        with self._lock:
            if self._engine is not None:
                self._idle = session

    def _start(
        self,
        messages: list[tuple[str, str]],
        pictures: Sequence[Picture],
        clips: Sequence[Sequence[Picture]],
        system: str | None,
        sampling: Sampling,
        *,
        reference_compat: bool = False,
    ) -> Stream:
        core = self._core
        session = self._take()
        try:
            generation = session.start(
                messages, images=pictures, videos=clips, system=system, reference_compat=reference_compat, **sampling
            )
        except BaseException:
            self._give_back(session)
            raise
        del core
        return Stream(self, session, generation)


class Chat:
    """A dialogue: `send` asks and remembers; pictures and text already seen are not computed again.

    Attributes:
        messages: The dialogue so far.
    """

    def __init__(self, model: Model, system: str | None, num_video_frames: int | None) -> None:
        self._model = model
        self._system = system
        self._n_frames = num_video_frames
        self._pictures: list[Picture] = []
        self._clips: list[list[Picture]] = []
        self._open: Stream | None = None
        self.messages: list[tuple[str, str]] = []

    def send(
        self,
        text: str,
        *,
        images: Sequence[ImageLike] = (),
        videos: Sequence[VideoLike] = (),
        **sampling: Unpack[Sampling],
    ) -> Result:
        """Asks the next question and returns the answer; arguments as in `Model.generate`."""
        with self.stream(text, images=images, videos=videos, **sampling) as stream:
            return stream.result()

    def stream(
        self,
        text: str,
        *,
        images: Sequence[ImageLike] = (),
        videos: Sequence[VideoLike] = (),
        **sampling: Unpack[Sampling],
    ) -> Stream:
        """As `send`, piece by piece; the turn is remembered when the stream ends.

        A stream that was stopped before its first token leaves the dialogue as it was.
        """
        if self._open is not None:
            raise InvalidArgument("[chat] expected no open stream, got a second question before the first was answered")
        pictures = self._pictures + [load_image(image) for image in images]
        clips = self._clips + self._model._clips(videos, self._n_frames)
        messages = [*self.messages, ("user", _core.tag_media(text, len(images), len(videos)))]
        stream = self._model._start(messages, pictures, clips, self._system, sampling)

        def remember(ended: Stream) -> None:
            self._open = None
            if ended._ids:
                self.messages = [*messages, ("assistant", ended.text)]
                self._pictures, self._clips = pictures, clips

        stream._on_end.append(remember)
        self._open = stream
        return stream

    def reset(self) -> None:
        """Forgets everything but the system text."""
        if self._open is not None:
            self._open.close()
        self.messages, self._pictures, self._clips = [], [], []


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    isa: str | None = None,
    memory: Literal["fast", "mapped"] = "fast",
    kv_cache: Literal["f16", "f32"] = "f16",
    max_context: int | None = None,
    conv_mode: str | None = None,
) -> Model:
    """Loads a converted model.

    Args:
        path: A model folder written by `vila-engine convert`.
        threads: Compute threads; default: physical cores within the affinity mask and the cgroup quota.
        isa: Kernels to use (see `vila-engine inspect`); default: VILA_ISA, else the best that this machine can run.
        memory: "fast" reads the weights into memory of the engine's own, in huge pages where the system gives them;
            "mapped" maps the file: smallest footprint, shared between processes.
        kv_cache: Type of cached keys and values.
        max_context: Longest prompt and answer in tokens; default: what the checkpoint says.
        conv_mode: Chat template; default: what the checkpoint says.

    Returns:
        The model; also a context manager.

    Raises:
        IoError: the folder or a file cannot be read.
        CheckpointError: it is no model folder, or it is damaged.
        UnsupportedError: the model or `isa` is not supported here.
        InvalidArgument: a wrong argument.
    """
    if threads is not None and threads < 1:
        raise InvalidArgument(f"[load] threads: expected at least 1, got {threads}")
    return Model(
        _core.Engine.load(
            str(Path(path)),
            threads=threads or 0,
            isa=isa or "",
            memory=memory,
            kv_cache=kv_cache,
            max_context=max_context or 0,
            conv_mode=conv_mode or "",
        )
    )


def _messages(query: Query) -> list[tuple[str, str]]:
    if isinstance(query, str):
        return [("user", query)]
    messages = []
    for message in query:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise InvalidArgument(f'[prompt] expected messages {{"role": ..., "content": ...}}, got {message!r}')
        if not isinstance(message["role"], str) or not isinstance(message["content"], str):
            raise InvalidArgument(f"[prompt] expected role and content to be text, got {message!r}")
        messages.append((message["role"], message["content"]))
    return messages


def _count(images: Sequence[Any] | int) -> int:
    return images if isinstance(images, int) else len(images)
