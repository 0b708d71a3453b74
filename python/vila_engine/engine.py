"""The Python door: defaults, media and iterators over the C++ engine."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vila_engine import _core
from vila_engine._core import InvalidArgument
from vila_engine.media import Picture, count_frames, load_images, load_videos
from vila_engine.query import (
    Messages,
    Query,
    Sampling,
    checked_integer,
    checked_messages,
    checked_sampling,
    checked_text,
)
from vila_engine.results import Piece, Result, Timings, Usage

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from vila_engine.media import ImageLike, VideoLike

FloatArray = npt.NDArray[np.float32]
KvCache = Literal["f16", "f32", "int8"]


class Stream:
    """An answer in the making: iterate to pull pieces; `cancel()` from any thread, or close it, to stop early."""

    def __init__(self, model: Model, generation: _core.Generation, on_end: Callable[[Stream], None]) -> None:
        self._model = model
        self._generation = generation
        self._on_end: Callable[[Stream], None] | None = on_end
        self._texts: list[str] = []
        self._ids: list[int] = []

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            event = next(self._generation)
        except BaseException:  # StopIteration and KeyboardInterrupt included: the answer has ended
            self.close()
            raise
        self._texts.append(event.text)
        self._ids.append(event.id)
        return Piece(event.text, event.id, event.logprob)

    def cancel(self) -> None:
        """Stops at the next layer or token; the iteration then ends. May be called from any thread."""
        self._generation.cancel()

    def close(self) -> None:
        """Ends the answer and frees its session; waits until a thread that is computing has noticed."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._generation.close()
            on_end(self)

    def result(self) -> Result:
        """Pulls what is left and returns the whole answer."""
        for _ in self:
            pass
        stats = self._generation.stats
        return Result(
            text=self.text,
            token_ids=list(self._ids),
            finish_reason=self._generation.finish_reason or "cancelled",  # closed before it ended by itself
            usage=Usage(
                stats.prompt_tokens,
                stats.image_tokens,
                stats.cached_tokens,
                stats.completion_tokens,
                stats.proposed_tokens,
                stats.accepted_tokens,
            ),
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

    def __del__(self) -> None:
        self.close()


class Model:
    """A loaded model; use `load()`. Safe to use from several threads; each open answer has a session of its own.

    Attributes:
        info: Architecture, weight formats and bytes, chat template, kernels, threads, memory kind, load seconds.
    """

    def __init__(self, engine: _core.Engine) -> None:
        self._engine: _core.Engine | None = engine
        self._idle: _core.Session | None = None  # keeps the last prompt's keys and values for a similar next one
        self._chats: weakref.WeakSet[Chat] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.info: dict[str, Any] = json.loads(engine.info)

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
        pictures, clips = load_images(images), self._clips(videos, num_video_frames)
        return self._start(checked_messages(query), pictures, clips, system, sampling)

    def chat(self, system: str | None = None, *, num_video_frames: int | None = None) -> Chat:
        """A dialogue of several turns with a session of its own; nothing that was seen is computed again."""
        chat = Chat(self, system, num_video_frames)
        self._chats.add(chat)
        return chat

    def preprocess(self, image: ImageLike) -> FloatArray:
        """The vision tower's input: f32 [1, 3, S, S], S2 models at the largest scale."""
        return self._core.preprocess(load_images([image])[0])

    def vision_features(self, image: ImageLike) -> FloatArray:
        """The selected hidden state of the tower, after the S2 merge: f32 [P, Cv]."""
        return self._core.vision_features(load_images([image])[0])

    def encode_image(self, image: ImageLike) -> FloatArray:
        """The rows that stand for a picture in the language model: f32 [tokens, C]."""
        return self._core.encode_image(load_images([image])[0])

    def prompt_text(
        self,
        query: Query,
        *,
        images: Sequence[ImageLike] | int = (),
        videos: Sequence[VideoLike | int] = (),
        num_video_frames: int | None = None,
        system: str | None = None,
        reference_compat: bool = False,
    ) -> str:
        """The rendered prompt with `<image>` marks.

        Media are only counted: pictures may be given as their number, a video as its number of frames.
        """
        return self._core.prompt_text(
            checked_messages(query),
            images=_count(images),
            videos=[count_frames(video, self._frames(num_video_frames)) for video in videos],
            system=_system(system),
            reference_compat=reference_compat,
        )

    def prompt_ids(
        self,
        query: Query,
        *,
        images: Sequence[ImageLike] | int = (),
        videos: Sequence[VideoLike | int] = (),
        num_video_frames: int | None = None,
        system: str | None = None,
        reference_compat: bool = False,
    ) -> list[int]:
        """The prompt's ids, -200 for each picture or frame; media are only counted, as in `prompt_text`."""
        return self._core.prompt_ids(
            checked_messages(query),
            images=_count(images),
            videos=[count_frames(video, self._frames(num_video_frames)) for video in videos],
            system=_system(system),
            reference_compat=reference_compat,
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
            checked_messages(query),
            images=load_images(images),
            videos=self._clips(videos, num_video_frames),
            system=_system(system),
            reference_compat=reference_compat,
        )

    @property
    def tokenizer(self) -> _core.Tokenizer:
        """The model's tokenizer: `encode(text)` and `decode(ids)`."""
        return self._core.tokenizer

    def close(self) -> None:
        """Frees the weights as soon as the last open answer ends; the object cannot be used any more."""
        with self._lock:
            self._engine = self._idle = None
            for chat in self._chats:
                chat._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vila_engine.Model {self.info['source'] or 'unnamed'}, {self.info['isa']}>"

    @property
    def _core(self) -> _core.Engine:
        if self._engine is None:
            raise InvalidArgument("[model] expected an open model, got a closed one")
        return self._engine

    def _frames(self, n_frames: int | None) -> int:
        default: int = self.info["n_video_frames"]
        return default if n_frames is None else checked_integer("[video] num_video_frames", n_frames, 1, 2**31 - 1)

    def _clips(self, videos: Sequence[VideoLike], n_frames: int | None) -> list[list[Picture]]:
        return load_videos(videos, self._frames(n_frames))

    def _start(
        self,
        messages: Messages,
        pictures: Sequence[Picture],
        clips: Sequence[Sequence[Picture]],
        system: str | None,
        sampling: Sampling,
        *,
        reference_compat: bool = False,
        chat: Chat | None = None,
        on_end: Callable[[Stream], None] | None = None,
    ) -> Stream:
        """Starts an answer on the idle session of the model or the chat, or on a new one if that is in use."""
        options = checked_sampling(sampling)
        engine = self._core
        home = self if chat is None else chat
        name = "_idle" if chat is None else "_session"
        with self._lock:
            session = getattr(home, name)
            setattr(home, name, None)
        session = session or engine.new_session()

        def give_back() -> None:
            with self._lock:
                if self._engine is not None:
                    setattr(home, name, session)

        def ended(stream: Stream) -> None:
            give_back()
            if on_end is not None:
                on_end(stream)

        try:
            generation = session.start(
                messages,
                images=pictures,
                videos=clips,
                system=_system(system),
                reference_compat=reference_compat,
                **options,
            )
        except BaseException:
            give_back()
            raise
        return Stream(self, generation, ended)


class Chat:
    """A dialogue: `send` asks and remembers; pictures and text already seen are not computed again.

    Attributes:
        messages: The dialogue so far, (role, text) pairs.
    """

    def __init__(self, model: Model, system: str | None, num_video_frames: int | None) -> None:
        self._model = model
        self._system = system
        self._n_frames = num_video_frames
        self._session: _core.Session | None = None
        self._pictures: list[Picture] = []
        self._clips: list[list[Picture]] = []
        self._open: weakref.ref[Stream] | None = None
        self.messages: Messages = []

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
        pictures = self._pictures + load_images(images)
        clips = self._clips + self._model._clips(videos, self._n_frames)
        question = _core.tag_media(checked_text("[chat] question", text), len(images), len(videos))
        messages = [*self.messages, ("user", question)]

        def remember(ended: Stream) -> None:
            self._open = None
            if ended._ids:
                self.messages = [*messages, ("assistant", ended.text)]
                self._pictures, self._clips = pictures, clips

        stream = self._model._start(messages, pictures, clips, self._system, sampling, chat=self, on_end=remember)
        self._open = weakref.ref(stream)
        return stream

    def reset(self) -> None:
        """Forgets everything but the system text."""
        stream = self._open() if self._open is not None else None
        if stream is not None:
            stream.close()
        self.messages, self._pictures, self._clips = [], [], []


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    isa: str | None = None,
    memory: Literal["fast", "mapped"] = "fast",
    kv_cache: KvCache = "f16",
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
        kv_cache: What cached keys and values are stored as. "int8" (one scale per token and KV head) takes about half
            of the memory of "f16" and is a little less accurate.
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
    return Model(
        _core.Engine.load(
            os.fspath(Path(path)),
            threads=0 if threads is None else checked_integer("[load] threads", threads, 1, 2**31 - 1),
            isa="" if isa is None else checked_text("[load] isa", isa),
            memory=checked_text("[load] memory", memory),
            kv_cache=checked_text("[load] kv_cache", kv_cache),
            max_context=0 if max_context is None else checked_integer("[load] max_context", max_context, 1, 2**62),
            conv_mode="" if conv_mode is None else checked_text("[load] conv_mode", conv_mode),
        )
    )


def _count(images: Sequence[ImageLike] | int) -> int:
    return checked_integer("[prompt] images", images if isinstance(images, int) else len(images), 0, 2**31 - 1)


def _system(text: str | None) -> str | None:
    return None if text is None else checked_text("[prompt] system", text)
