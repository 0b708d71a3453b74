"""The C++ engine. Everything takes plain numbers, strings and arrays; defaults and file handling live in engine.py."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Never, Self

__version__: str

_Picture = npt.NDArray[np.uint8]
"""8-bit RGB, [height, width, 3]."""
_Floats = npt.NDArray[np.float32]
_Parts = dict[str, npt.NDArray[Any]]
_Messages = Sequence[tuple[str, str]]
_FinishReason = Literal["stop", "length", "cancelled"]

class Error(RuntimeError):
    """Base of all errors of the engine: "[where] what was wrong: expected ..., got ..."."""

class InvalidArgument(Error, ValueError):
    """The caller passed something that cannot be right."""

class IoError(Error, OSError):
    """A file is missing or unreadable."""

class CheckpointError(Error):
    """A file is readable but its contents are wrong."""

class UnsupportedError(Error):
    """Valid, but not in this build or on this machine."""

class CapacityError(Error):
    """The context window or the memory is exhausted."""

    needed: int
    available: int

class InternalError(Error):
    """A bug of the engine; please report it."""

@final
class TokenEvent:
    """One generated token: its id, the text that became complete with it (may be empty), its log probability."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def id(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...

@final
class GenerationStats:
    """Token counts and wall times in seconds."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def image_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def proposed_tokens(self) -> int: ...
    @property
    def accepted_tokens(self) -> int: ...
    @property
    def image_seconds(self) -> float: ...
    @property
    def prefill_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...

@final
class Generation:
    """An open generation; iterate to pull tokens. The GIL is released while computing."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> TokenEvent: ...
    def cancel(self) -> None:
        """Stops at the next chunk of work; may be called from any thread."""

    def close(self) -> None:
        """Ends the generation; its session can start another. Waits for a thread that is computing to notice."""

    @property
    def finish_reason(self) -> _FinishReason | None:
        """None while running, then how it ended."""

    @property
    def stats(self) -> GenerationStats:
        """As of the last token."""

@final
class Tokenizer:
    """Text to token ids and back; immutable, safe to use from several threads."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def from_spec(spec: Mapping[str, Any]) -> Tokenizer:
        """Builds one from the dictionary that convert.tokenizers.read_tokenizer returns.

        Raises InvalidArgument for values of the wrong type, CheckpointError for what is inconsistent.
        """

    def encode(self, text: str | bytes, *, add_special: bool = True) -> list[int]:
        """Ids of a text, the begin token in front where the model uses one. Bytes that are no UTF-8 read as U+FFFD."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids; an id outside the vocabulary is an InvalidArgument."""

    def piece(self, id: int) -> bytes:
        """Bytes of one piece."""

    def is_special(self, id: int) -> bool:
        """Whether decoding leaves the id out."""

    def id_of(self, piece: str) -> int | None:
        """Id of an added token or a piece."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...

@final
class Detokenizer:
    """Ids to text one by one; what it gives is always whole characters."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None: ...
    def push(self, id: int) -> str:
        """The text that became complete."""

    def flush(self) -> str:
        """The rest; unfinished characters become U+FFFD."""

@final
class Session:
    """One conversation: a KV cache that keeps the longest common prefix with the next prompt, pictures included."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def start(
        self,
        messages: _Messages,
        *,
        images: Sequence[_Picture] = [],
        videos: Sequence[Sequence[_Picture]] = [],
        system: str | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = [],
        ignore_eos: bool = False,
        num_beams: int = 1,
        prompt_lookup: int = 0,
        reference_compat: bool = False,
    ) -> Generation: ...
    def reset(self) -> None:
        """Forgets everything and frees the cache's memory."""

    @property
    def position(self) -> int:
        """Tokens in the cache."""

    @property
    def cache_bytes(self) -> int:
        """Memory of the tokens in the cache."""

@final
class Engine:
    """A loaded model: immutable, safe to use from several threads through sessions of their own."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def load(
        path: str,
        *,
        threads: int = 0,
        isa: str = "",
        memory: str = "fast",
        kv_cache: str = "f16",
        max_context: int = 0,
        conv_mode: str = "",
    ) -> Engine: ...
    def new_session(self) -> Session: ...
    def preprocess(self, image: _Picture) -> _Floats:
        """The tower's input, f32 [1, 3, S, S] (S2: at the largest scale)."""

    def vision_features(self, image: _Picture) -> _Floats:
        """The selected hidden state, after the S2 merge, f32 [P, Cv]."""

    def encode_image(self, image: _Picture) -> _Floats:
        """The projected rows that enter the language model, f32 [tokens, C]."""

    def prompt_text(
        self,
        messages: _Messages,
        *,
        images: int = 0,
        videos: Sequence[int] = [],
        system: str | None = None,
        reference_compat: bool = False,
    ) -> str:
        """The rendered prompt with <image> marks; images and frames are given as counts."""

    def prompt_ids(
        self,
        messages: _Messages,
        *,
        images: int = 0,
        videos: Sequence[int] = [],
        system: str | None = None,
        reference_compat: bool = False,
    ) -> list[int]:
        """The prompt's ids, -200 for a picture."""

    def logits(
        self,
        messages: _Messages,
        *,
        images: Sequence[_Picture] = [],
        videos: Sequence[Sequence[_Picture]] = [],
        system: str | None = None,
        reference_compat: bool = False,
    ) -> _Floats:
        """Logits at every position of the prompt, f32 [T, V]."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def info(self) -> str:
        """JSON: architecture, weight formats and bytes, conversation mode, isa, threads, memory kind, load seconds."""

def encode_with_images(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Ids of a prompt with <image> marks; -200 stands for a picture."""

def render_chat(mode: str, messages: _Messages, system: str | None = None) -> str:
    """The prompt for (role, text) messages in a conversation mode."""

def detect_conv_mode(tokenizer: Tokenizer) -> str:
    """The conversation mode that the tokenizer's tokens speak for."""

def tag_media(text: str, n_images: int, n_videos: int) -> str:
    r"""Puts one "<image>\n" per untagged picture and "<video>\n" per untagged video in front of a message."""

def resize_bicubic(image: _Picture, width: int, height: int) -> _Picture:
    """[H, W, 3] -> [height, width, 3], bit for bit as Pillow 10.4's bicubic resize."""

def kernel_names() -> list[tuple[str, bool]]:
    """Compiled kernel tables, best first, and whether this machine can run each."""

def chosen_kernels() -> str:
    """The table that new engines use; honours VILA_ISA. Raises UnsupportedError."""

class _MachineLimits(TypedDict):
    read_bytes_per_second: float
    dot_macs_per_second: float
    fma_macs_per_second: float
    huge_page_bytes: int

def measure_limits(*, threads: int = 0, isa: str = "") -> _MachineLimits:
    """What the machine can do at best, measured on the spot.

    Args:
        threads: 0: physical cores.
        isa: Kernel table; empty: the chosen one.

    Raises:
        UnsupportedError: this build or machine has no such table.
    """

def default_threads() -> int:
    """Physical cores within the affinity mask and the cgroup quota."""

def pack_matrix(w: npt.ArrayLike, format: str) -> _Parts:
    """Quantises (round to nearest) and packs [N, K]; keys "weight", "weight_scale", "weight_zero", "weight_offset"."""

def pack_int4(
    q: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float16],
    format: str,
    *,
    zeros: npt.NDArray[np.uint8] | None = None,
    offsets: npt.NDArray[np.float16] | None = None,
) -> _Parts:
    """Packs ready int4 values [N, K] with scales [N, G] and zeros or offsets [N, G], unchanged."""

def unpack_matrix(parts: _Parts, format: str, n: int, k: int) -> _Floats:
    """The matrix [N, K] that packed parts stand for."""
