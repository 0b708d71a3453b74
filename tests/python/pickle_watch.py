"""Reads files of torch.save while an audit hook notes everything that the interpreter is asked to do."""

from __future__ import annotations

import encodings.cp437
import encodings.raw_unicode_escape
import encodings.unicode_escape  # noqa: F401  (loaded now, so that no import shows up while a file is read)
import sys
from pathlib import Path
from typing import Any

import pytest
from vila_engine import _core
from vila_engine.convert.torch_file import TorchFile

TYPED = (_core.CheckpointError, _core.UnsupportedError, _core.IoError)
DAMAGED_OR_REFUSED = (_core.CheckpointError, _core.UnsupportedError)
DANGEROUS = ("os.", "subprocess.", "pickle.", "exec", "compile", "import", "socket.", "shutil.", "ctypes.", "marshal.")


class _Watch:
    """Notes what the interpreter reports to audit hooks while it is on; a hook cannot be removed again."""

    def __init__(self) -> None:
        self.events: list[str] | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.events is None:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or (event.startswith(DANGEROUS) and event != "os.listdir"):
            self.events.append(event)


WATCH = _Watch()


def read_watched(path: Path) -> TorchFile | None:
    """Reads a file, which may do nothing but fail in a typed way; returns what was found, or None."""
    WATCH.events = []
    try:
        return TorchFile(path)
    except TYPED as error:
        assert "expected" in str(error)
        assert "got" in str(error)
        return None
    finally:
        events, WATCH.events = WATCH.events, None
        assert events == []


def refused(path: Path, error: type[Exception] | tuple[type[Exception], ...]) -> str:
    """Reads a file, which must fail with this error; returns the message."""
    WATCH.events = []
    try:
        with pytest.raises(error) as caught:
            TorchFile(path)
    finally:
        events, WATCH.events = WATCH.events, None
    assert events == []
    return str(caught.value)
