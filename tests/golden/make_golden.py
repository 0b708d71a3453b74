"""Makes the golden fixtures: tiny checkpoints, pictures and expected outputs.

    python tests/golden/make_golden.py [--out FOLDER] [--variant NAME ...]

Seeded and reproducible: the same versions of the libraries give the same arrays. Needs torch, transformers,
tokenizers, sentencepiece, safetensors and pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pictures
import torch
from checkpoints import write_checkpoint
from PIL import Image
from reference_model import TEMPLATES, ReferenceVila, render_prompt
from tokenizers_own import write_json
from variants import VARIANTS, Case, Variant

N_STEPS = 32
MIN_MARGIN = 5e-3
MIN_DISTINCT = 12
MIN_IMAGE_EFFECT = 0.1
MAX_TRIES = 400
LOGIT_STRIDE = 32
LOGIT_STEPS_PER_UNIT = 2.0**14
STOP_RANGE = range(4, 28)

Arrays = dict[str, npt.NDArray[Any]]

ARRAY_NOTES = {
    "input_ids": "int32 [P]; full prompt ids, -200 marks an image",
    "pixel_values": "float32 [n_images, 3, S, S]; after resize or pad, rescale, normalise (some variants, one case)",
    "vision_features": "float32 [n_images, N, C]; selected hidden state, after the S2 merge (first single case only)",
    "projector_output": "float32 [n_images, T, hidden]; rows in model order (first single case only)",
    "logits": "float32 [n, vocab]; logits at the prompt positions in logit_positions, rounded to multiples of 2^-14",
    "logit_positions": "int32 [n]; positions in the spliced sequence, ascending, the last one included",
    "greedy_ids": "int32 [32]; greedy continuation, stop ids are NOT honoured",
    "greedy_margin": "float32 [32]; gap between the best two logits at each step",
}
TOLERANCE = {
    "pixel_values": 1e-6,
    "vision_features": 2e-4,
    "projector_output": 2e-4,
    "logits": 2e-4,
    "note": "absolute, for an fp32 engine; a wrong norm eps moves logits by 3e-4, a wrong gelu by 7e-4 and more",
}


def stop_of(model: ReferenceVila, conv: str) -> tuple[str, int]:
    """The template's stop string and its id."""
    stop = TEMPLATES[conv].stop
    return stop, int(model.tokenizer.convert_tokens_to_ids(stop))


def run_cases(variant: Variant, model: ReferenceVila, images: Path) -> dict[str, Arrays]:
    """Runs the reference on every case."""
    results = {}
    for case in variant.cases:
        prompt = render_prompt(case.conv or variant.conv, case.turns)
        opened = [Image.open(images / name) for name in case.images]
        results[case.name] = model.run(prompt, opened, N_STEPS)
    return results


def image_effect(variant: Variant, model: ReferenceVila, results: dict[str, Arrays], images: Path) -> float:
    """Largest change of the last logits when the first case with pictures sees others instead."""
    case = next(case for case in variant.cases if case.images)
    prompt = render_prompt(case.conv or variant.conv, case.turns)
    other = Image.open(images / "square.png")
    changed = model.run(prompt, [other] * len(case.images), 1)["logits"][-1]
    return float(np.abs(changed - results[case.name]["logits"][-1]).max())


def complaint(variant: Variant, model: ReferenceVila, results: dict[str, Arrays], images: Path) -> str:
    """Says why a seed is unfit, or nothing: near ties, dull continuations, blindness, no early stop where wanted."""
    margin = min(float(arrays["greedy_margin"].min()) for arrays in results.values())
    if margin < MIN_MARGIN:
        return f"margin {margin:.1e}"
    distinct = min(len(set(arrays["greedy_ids"].tolist())) for arrays in results.values())
    if distinct < MIN_DISTINCT:
        return f"only {distinct} distinct ids"
    if variant.wants_stop:
        stop_id = stop_of(model, variant.conv)[1]
        sequences = [arrays["greedy_ids"].tolist() for arrays in results.values()]
        if not any(stop_id in ids and ids.index(stop_id) in STOP_RANGE for ids in sequences):
            return "no early stop"
    effect = image_effect(variant, model, results, images)
    return f"image effect {effect:.2g}" if effect < MIN_IMAGE_EFFECT else ""


def search_seed(variant: Variant, folder: Path, images: Path) -> tuple[int, ReferenceVila, dict[str, Arrays]]:
    """Writes checkpoints seed after seed until one is fit."""
    for seed in range(variant.seed, variant.seed + MAX_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(variant, folder, seed)
        model = ReferenceVila(folder)
        results = run_cases(variant, model, images)
        if not complaint(variant, model, results, images):
            return seed, model, results
    raise RuntimeError(f"{variant.name}: no fit seed from {variant.seed} on")


def stored_arrays(variant: Variant, case: Case, arrays: Arrays) -> Arrays:
    """Picks what goes into the case's file; vision arrays only for the first single-picture case."""
    length = len(arrays["logits"])
    every = case.name in variant.all_logits
    kept = set(range(length)) if every else {*range(0, length, LOGIT_STRIDE), length - 2, length - 1}
    positions = np.array(sorted(kept), np.int32)
    logits = np.rint(arrays["logits"][positions] * LOGIT_STEPS_PER_UNIT) / LOGIT_STEPS_PER_UNIT
    stored = {name: arrays[name] for name in ("input_ids", "greedy_ids", "greedy_margin")}
    stored |= {"logits": logits.astype(np.float32), "logit_positions": positions}
    first = next(c.name for c in variant.cases if len(c.images) == 1)
    if case.name == first:
        names = ("vision_features", "projector_output", *(("pixel_values",) if variant.pixels else ()))
        stored |= {name: arrays[name] for name in names}
    return stored


def case_entry(variant: Variant, case: Case, arrays: Arrays, model: ReferenceVila) -> dict[str, Any]:
    """The case's lines in the manifest."""
    conv = case.conv or variant.conv
    stop, stop_id = stop_of(model, conv)
    greedy = arrays["greedy_ids"].tolist()
    return {
        "name": case.name,
        "file": f"cases/{case.name}.npz",
        "conv": conv,
        "images": case.images,
        "turns": case.turns,
        "prompt": render_prompt(conv, case.turns),
        "prompt_tokens": len(arrays["input_ids"]),
        "sequence_length": len(arrays["logits"]),
        "visual_tokens_per_image": arrays["projector_output"].shape[1] if case.images else 0,
        "stop_string": stop,
        "stop_token_id": stop_id,
        "stops_early": stop_id in greedy,
        "min_greedy_margin": float(arrays["greedy_margin"].min()),
        "decoded_skip_special": model.decode_until_stop(greedy, stop_id),
    }


def file_table(folder: Path) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of every file below a folder, the manifest left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {
        p.relative_to(folder).as_posix(): {
            "bytes": p.stat().st_size,
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        }
        for p in files
    }


def make_variant(variant: Variant, out: Path) -> int:
    """Writes one fixture folder; returns the seed that was fit."""
    folder = out / variant.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cases").mkdir(parents=True)
    seed, model, results = search_seed(variant, folder / "checkpoint", out / "images")
    entries = []
    for case in variant.cases:
        arrays = results[case.name]
        np.savez_compressed(folder / "cases" / f"{case.name}.npz", **stored_arrays(variant, case, arrays))
        entries.append(case_entry(variant, case, arrays, model))
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "pillow")}
    manifest = {
        "variant": variant.name,
        "generator": "make_golden.py",
        **versions,
        "compute": "fp32 on CPU, weights upcast exactly from the stored dtype; resize with the horizontal pass first",
        "images": "../images",
        "arrays": ARRAY_NOTES,
        "tolerance": TOLERANCE,
        "config": {**variant.describe(), "seed": seed},
        "vocab_size": int(model.llm.config.vocab_size),
        "cases": entries,
        "files": file_table(folder),
    }
    write_json(folder / "manifest.json", manifest)
    return seed


def main() -> None:
    """Parses the command line and makes what it names."""
    parser = argparse.ArgumentParser(description="Makes the golden fixtures.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the fixture folders go")
    parser.add_argument("--variant", action="append", choices=[v.name for v in VARIANTS], help="default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures.write_all(arguments.out / "images")
    for variant in VARIANTS:
        if arguments.variant is None or variant.name in arguments.variant:
            print(f"{variant.name}: seed {make_variant(variant, arguments.out)}", flush=True)
    write_json(arguments.out / "images" / "manifest.json", {"files": file_table(arguments.out / "images")})


if __name__ == "__main__":
    main()
