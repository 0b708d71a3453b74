"""VILA 1.5 visual language models on CPUs: load a converted model, ask about pictures and videos."""

from vila_engine._core import (
    CapacityError,
    CheckpointError,
    Error,
    InternalError,
    InvalidArgument,
    IoError,
    UnsupportedError,
    __version__,
)
from vila_engine.engine import Chat, Model, Piece, Result, Stream, Timings, Usage, load
from vila_engine.query import ChatMessage, Sampling

__all__ = [
    "CapacityError",
    "Chat",
    "ChatMessage",
    "CheckpointError",
    "Error",
    "InternalError",
    "InvalidArgument",
    "IoError",
    "Model",
    "Piece",
    "Result",
    "Sampling",
    "Stream",
    "Timings",
    "UnsupportedError",
    "Usage",
    "__version__",
    "load",
]
