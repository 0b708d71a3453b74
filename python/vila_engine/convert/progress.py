"""Tells how far a conversion is: to a bar, to a function, or to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = bool | Callable[[int, int], None]


class ByteCounter:
    """Counts bytes into a progress bar (True), a function of bytes done and bytes in all, or nowhere (False)."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total = total
        self.done = 0
        self.report = progress if callable(progress) else None
        self.bar: Any = None
        if progress is True:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="B", unit_scale=True, desc="converting", leave=False)

    def __enter__(self) -> ByteCounter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, n_bytes: int) -> None:
        """Counts bytes that were written."""
        self.done += n_bytes
        if self.bar is not None:
            self.bar.update(n_bytes)
        if self.report is not None:
            self.report(self.done, self.total)
