"""What the tests of the Python door share: the golden fixtures, case by case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from vila_engine import ChatMessage

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = GOLDEN / "images"
VARIANTS = sorted(path.parent.parent.name for path in GOLDEN.glob("*/checkpoint/config.json"))
WEIGHTS = ("f32", "f16", "int8", "int4")


@dataclass(frozen=True)
class Case:
    """One recorded case: what was asked, and the reference's arrays."""

    entry: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    tolerance: dict[str, float]
    conv: str

    @property
    def images(self) -> list[Path]:
        return [PICTURES / name for name in self.entry["images"]]

    @property
    def messages(self) -> list[ChatMessage]:
        """The turns; the last one, which is to be answered, is None."""
        return [
            {"role": "assistant" if i % 2 else "user", "content": text}
            for i, text in enumerate(self.entry["turns"])
            if text is not None
        ]


def load_case(variant: str, name: str) -> Case:
    manifest = json.loads((GOLDEN / variant / "manifest.json").read_text(encoding="utf-8"))
    (entry,) = (case for case in manifest["cases"] if case["name"] == name)
    with np.load(GOLDEN / variant / entry["file"]) as arrays:
        return Case(entry, dict(arrays), manifest["tolerance"], entry.get("conv", manifest["config"]["conv"]))


def case_names(variant: str) -> list[str]:
    manifest = json.loads((GOLDEN / variant / "manifest.json").read_text(encoding="utf-8"))
    return [case["name"] for case in manifest["cases"]]
