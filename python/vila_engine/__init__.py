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
from vila_engine.engine import Chat, Model, Stream, load
from vila_engine.query import ChatMessage, Sampling
from vila_engine.results import Piece, Result, Timings, Usage

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
