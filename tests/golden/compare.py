"""Compares the reference model with stored goldens of the same format: `python compare.py FOLDER...`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reference_model import ReferenceVila, render_prompt


def compare_variant(folder: Path) -> dict[str, dict[str, float | bool]]:
    """Runs every case of one fixture folder; returns per case the largest difference or the equality of each array."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    model = ReferenceVila(folder / "checkpoint")
    images_folder = folder / manifest["images"]
    report: dict[str, dict[str, float | bool]] = {}
    for case in manifest["cases"]:
        stored = np.load(folder / case["file"])
        images = [Image.open(images_folder / name) for name in case["images"]]
        prompt = render_prompt(case.get("conv", manifest["config"]["conv"]), case["turns"])
        arrays = model.run(prompt, images, n_steps=len(stored["greedy_ids"]))
        line: dict[str, float | bool] = {"prompt": prompt == case["prompt"]}
        for name in ("input_ids", "greedy_ids"):
            line[name] = bool(np.array_equal(arrays[name], stored[name]))
        for name in ("pixel_values", "vision_features", "projector_output", "logits"):
            if name in stored.files:
                found = arrays[name]
                if name == "logits" and "logit_positions" in stored.files:
                    found = found[stored["logit_positions"]]
                line[name] = float(np.abs(found - stored[name]).max())
        text = model.decode_until_stop(arrays["greedy_ids"].tolist(), case["stop_token_id"])
        line["text"] = text == case["decoded_skip_special"]
        report[case["name"]] = line
    return report


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    torch.set_num_threads(1)
    for folder in parser.parse_args().folders:
        for name, line in compare_variant(folder).items():
            cells = (f"{k}={v:.2e}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items())
            print(folder.name, name, *cells)


if __name__ == "__main__":
    main()
