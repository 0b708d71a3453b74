"""The C++ engine. Everything here takes plain numbers, strings and arrays; defaults and file handling live in engine.py."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__version__: str

class Error(RuntimeError): ...
class InvalidArgument(Error, ValueError): ...
class IoError(Error, OSError): ...
class CheckpointError(Error): ...
class UnsupportedError(Error): ...
class CapacityError(Error):
    needed: int
    available: int
class InternalError(Error): ...

Picture = npt.NDArray[np.uint8]
"""8-bit RGB, [height, width, 3]."""

class TokenEvent:
    """One generated token: its id, the text that became complete with it (may be empty), its log probability."""

    @property
    def id(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...

class GenerationStats:
    """Token counts and wall times in seconds."""

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    image_seconds: float
    prefill_seconds: float
    decode_seconds: float

class Generation:
    """An open generation; iterate to pull tokens. The GIL is released while computing."""

    def __iter__(self) -> Generation: ...
    def __next__(self) -> TokenEvent: ...
    def cancel(self) -> None:
        """Stops at the next chunk of work; may be called from any thread."""
    def close(self) -> None: ...
    @property
    def finish_reason(self) -> str | None:
        """None while running, then "stop", "length" or "cancelled"."""
    @property
    def stats(self) -> GenerationStats: ...

class Tokenizer:
    def encode(self, text: str | bytes, *, add_special: bool = True) -> list[int]: ...
    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...
    def piece(self, id: int) -> bytes: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...

class Session:
    """One conversation: a KV cache that keeps the longest common prefix with the next prompt, pictures included."""

    def start(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        images: Sequence[Picture] = ...,
        videos: Sequence[Sequence[Picture]] = ...,
        system: str | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = ...,
        ignore_eos: bool = False,
        num_beams: int = 1,
        reference_compat: bool = False,
    ) -> Generation: ...
    def reset(self) -> None: ...
    @property
    def position(self) -> int: ...
    @property
    def cache_bytes(self) -> int: ...

class Engine:
    """A loaded model: immutable, safe to use from several threads through sessions of their own."""

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
    def preprocess(self, image: Picture) -> npt.NDArray[np.float32]:
        """The tower's input, f32 [1, 3, S, S] (S2: at the largest scale)."""
    def vision_features(self, image: Picture) -> npt.NDArray[np.float32]:
        """The selected hidden state, after the S2 merge, f32 [P, Cv]."""
    def encode_image(self, image: Picture) -> npt.NDArray[np.float32]:
        """The projected rows that enter the language model, f32 [tokens, C]."""
    def prompt_text(self, messages: Sequence[tuple[str, str]], *, images: int = 0, videos: Sequence[int] = ..., system: str | None = None, reference_compat: bool = False) -> str:
        """The rendered prompt with <image> marks; images and frames are given as counts."""
    def prompt_ids(self, messages: Sequence[tuple[str, str]], *, images: int = 0, videos: Sequence[int] = ..., system: str | None = None, reference_compat: bool = False) -> list[int]:
        """The prompt's ids, -200 for a picture."""
    def logits(self, messages: Sequence[tuple[str, str]], *, images: Sequence[Picture] = ..., videos: Sequence[Sequence[Picture]] = ..., system: str | None = None, reference_compat: bool = False) -> npt.NDArray[np.float32]:
        """Logits at every position of the prompt, f32 [T, V]."""
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def info(self) -> str:
        """JSON: architecture, weight formats and bytes, conversation mode, isa, threads, memory kind, load seconds."""

def tag_media(text: str, n_images: int, n_videos: int) -> str:
    """Puts one "<image>\\n" per untagged picture and "<video>\\n" per untagged video in front of a message."""

def kernel_names() -> list[tuple[str, bool]]:
    """Compiled kernel tables, best first, and whether this machine can run each."""

def chosen_kernels() -> str:
    """The table that new engines use; honours VILA_ISA. Raises UnsupportedError."""

def default_threads() -> int:
    """Physical cores within the affinity mask and the cgroup quota."""

def pack_matrix(w: npt.NDArray[np.float32], format: str) -> dict[str, npt.NDArray[np.generic]]:
    """Quantises (round to nearest) and packs [N, K]; keys "weight", "weight_scale", "weight_zero", "weight_offset"."""

def pack_int4(
    q: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float16],
    format: str,
    *,
    zeros: npt.NDArray[np.uint8] | None = None,
    offsets: npt.NDArray[np.float16] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """Packs ready int4 values [N, K] with scales [N, G] and zeros or offsets [N, G], unchanged."""

def unpack_matrix(parts: dict[str, npt.NDArray[np.generic]], format: str, n: int, k: int) -> npt.NDArray[np.float32]:
    """The matrix [N, K] that packed parts stand for."""
