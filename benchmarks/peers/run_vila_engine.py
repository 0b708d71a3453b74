"""vila_engine itself, as one of the programs that are compared."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import serve
import vila_engine
from vila_engine.bench.prompts import Prompts


class VilaEngine:
    """A model folder that `vila_engine.bench.folder.write_model` wrote."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = vila_engine.load(path, threads=threads, isa=os.environ.get("VILA_ISA"), conv_mode="plain")
        self.prompts = Prompts(self.model)
        self.texts: dict[int, str] = {}

    def hello(self) -> dict[str, Any]:
        """See serve.Program."""
        formats = self.model.info["weight_bytes"]
        return {
            "version": vila_engine.__version__,
            "isa": self.model.info["isa"],
            "threads": self.model.info["threads"],
            "model": {name: n for name, n in formats.items() if "p16" in name},
        }

    def prefill(self, tokens: int) -> float:
        """See serve.Program."""
        result = self.model.generate(self.prompts.text(tokens), max_new_tokens=1, ignore_eos=True)
        computed = result.usage.prompt_tokens - result.usage.cached_tokens
        return result.timings.prefill * tokens / computed

    def decode(self, context: int, tokens: int) -> float:
        """See serve.Program."""
        text = self.texts.setdefault(context, self.prompts.text(context - self.prompts.n_cached))
        return self.model.generate(text, max_new_tokens=tokens + 1, ignore_eos=True).timings.decode

    def vision(self) -> float:
        """See serve.Program: from 8-bit pixels, normalising included."""
        picture = self._picture()
        started = time.perf_counter()
        self.model.encode_image(picture)
        return time.perf_counter() - started

    def first_token(self, question: int) -> float:
        """See serve.Program: from the call to the first piece of text, everything included."""
        text, picture = "<image>" + self.prompts.text(question), self._picture()
        started = time.perf_counter()
        with self.model.stream(text, images=[picture], max_new_tokens=1, ignore_eos=True) as stream:
            next(stream)
            return time.perf_counter() - started

    def _picture(self) -> npt.NDArray[np.uint8]:
        side = self.model.info["vision"]["image_size"]
        return self.prompts.picture(side, side)


def make(shape: dict[str, Any], folder: Path) -> None:
    """Nothing: the main program writes this model."""
    raise SystemExit(f"{folder}: models of vila_engine are written by compare_peers.py")


if __name__ == "__main__":
    serve.main(make, VilaEngine)
