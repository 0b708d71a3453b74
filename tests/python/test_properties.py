"""What must hold for any input: equal bits for all kernels, threads and chunks, and for cached and fresh prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import vila_engine
from conftest import Converted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from support import PICTURES, WEIGHTS
from vila_engine import _core

USABLE = [name for name, usable in _core.kernel_names() if usable]
CHUNK = 512
"""Most rows of one prefill pass."""

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
PICTURE = st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tall() -> npt.NDArray[np.uint8]:
    with Image.open(PICTURES / "tall.png") as image:
        return np.asarray(image.convert("RGB"))


def long_query(model: vila_engine.Model, n_positions: int) -> str:
    """A question whose prompt has more than `n_positions` positions."""
    text = "<image> one, <image>"
    while len(model.prompt_ids(text, images=2)) + 30 <= n_positions:
        text += " word and 12 more, naïve café 猫"
    return text


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("variant", ["vila3b", "vila3b_awq", "vila40b"])
def test_same_bytes_for_all_kernels_and_thread_counts(
    variant: str, weights: str, converted: Converted, tall: npt.NDArray[np.uint8]
) -> None:
    folder = converted(variant, weights)
    seen: set[tuple[bytes, ...]] = set()
    for isa in USABLE:
        for threads in (1, 2, 5):
            with vila_engine.load(folder, isa=isa, threads=threads) as model:
                assert (model.info["isa"], model.info["threads"]) == (isa, threads)
                query = long_query(model, 150)
                images = [tall, tall[:40]]
                answer = model.generate(query, images=images, max_new_tokens=6, ignore_eos=True, temperature=0.7)
                arrays = (model.vision_features(tall), model.encode_image(tall), model.logits(query, images=images))
                seen.add((*(array.tobytes() for array in arrays), repr(answer.token_ids).encode()))
    assert len(seen) == 1


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_prompt_in_chunks_is_the_prompt_in_one(
    weights: str, converted: Converted, tall: npt.NDArray[np.uint8]
) -> None:
    """Rows of one chunk, of the first of several, and of prompts cut elsewhere by the cache have equal bits."""
    with vila_engine.load(converted("vila3b", weights)) as model:
        query, images = long_query(model, 2 * CHUNK + 40), [tall, tall[:40]]
        whole = model.logits(query, images=images)
        assert len(whole) > 2 * CHUNK
        ids = model.prompt_ids(query, images=2)
        # Shorter prompts with the same beginning: their last rows lie in one chunk, or just behind a border.
        for length in (60, 150, 400, len(query) - 10):
            part = model.logits(query[:length], images=images)
            same = len(model.prompt_ids(query[:length], images=2)) - 12  # without the tail of the template
            rows = same + 2 * 15
            assert ids[:same] == model.prompt_ids(query[:length], images=2)[:same]
            assert np.array_equal(part[:rows], whole[:rows])
        # A cache that covers n positions moves every border of the rest by n.
        fresh = model.generate(query, images=images, max_new_tokens=8, ignore_eos=True)
        for length in (30, 100, 333):
            model._idle = None
            model.generate(query[:length], images=images, max_new_tokens=1)
            moved = model.generate(query, images=images, max_new_tokens=8, ignore_eos=True)
            assert 0 < moved.usage.cached_tokens < moved.usage.prompt_tokens - 1
            assert moved.token_ids == fresh.token_ids


@quick
@given(data=st.data())
def test_prefix_reuse_is_a_fresh_run(lone_model: vila_engine.Model, data: st.DataObject) -> None:
    """Any walk through prompts on one session gives what fresh sessions give, logits of the answer included."""
    pictures = data.draw(st.lists(PICTURE, min_size=2, max_size=2))
    parts = data.draw(
        st.lists(st.sampled_from(["<image>", "a cat", "\n", " 12", "猫", "why?"]), min_size=1, max_size=6)
    )
    for _ in range(4):
        parts = parts[: data.draw(st.integers(0, len(parts)))] + data.draw(
            st.lists(st.sampled_from(["<image>", "a dog", " 7 ", "é"]), max_size=3)
        )
        query = "".join(parts)
        count = query.count("<image>")
        images = [pictures[data.draw(st.integers(0, 1))] for _ in range(count)]
        options: dict[str, Any] = {"images": images, "max_new_tokens": data.draw(st.integers(1, 5)), "ignore_eos": True}
        reused = list(lone_model.stream(query, **options))
        kept, lone_model._idle = lone_model._idle, None
        fresh = list(lone_model.stream(query, **options))
        lone_model._idle = kept
        assert reused == fresh


@quick
@given(text=TEXTS)
def test_decoding_undoes_encoding(model: vila_engine.Model, text: str) -> None:
    ids = model.tokenizer.encode(text)
    if any(token in text for token in ("<unk>", "<s>", "</s>", "\u2581")):
        return
    assert ids[0] == model.tokenizer.bos_id
    assert model.tokenizer.decode(ids).removeprefix(" ") == text.removeprefix(" ")


@quick
@given(data=st.binary(max_size=40))
def test_bytes_are_read_as_text_with_replacements(model: vila_engine.Model, data: bytes) -> None:
    assert model.tokenizer.encode(data) == model.tokenizer.encode(data.decode("utf-8", "replace"))


@quick
@given(text=TEXTS.filter(lambda text: "<image" not in text and "<video>" not in text))
def test_any_text_is_answered_in_whole_characters(model: vila_engine.Model, text: str) -> None:
    pieces = list(model.stream(text, max_new_tokens=5, ignore_eos=True))
    assert len(pieces) == 5
    joined = "".join(piece.text for piece in pieces)
    assert joined == model.tokenizer.decode([piece.token_id for piece in pieces])


def pillow_bicubic(image: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Pillow's bicubic in two explicit passes, horizontal first, because Pillow 13 swaps them for some shapes."""
    across = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(across.resize((width, height), Image.Resampling.BICUBIC))


SIDES = st.one_of(st.integers(1, 12), st.integers(1, 300), st.sampled_from([1, 2, 97, 98, 99, 196, 383, 640, 1500]))


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES, to_width=SIDES, to_height=SIDES, seed=st.integers(0, 2**32 - 1), hard=st.booleans())
def test_resize_is_pillows_bit_for_bit(  # noqa: PLR0917
    width: int, height: int, to_width: int, to_height: int, seed: int, hard: bool
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if hard:  # only black and white, which overshoots
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    expected = pillow_bicubic(Image.fromarray(pixels), to_width, to_height)
    assert np.array_equal(_core.resize_bicubic(pixels, to_width, to_height), expected)


@pytest.fixture(scope="module", params=["vila3b", "mlp2x_pad_bin", "vila40b", "vila3b_s2"])
def any_model(request: pytest.FixtureRequest, converted: Converted) -> Iterator[vila_engine.Model]:
    """Towers with resize and pad, both statistics, one and two scales."""
    with vila_engine.load(converted(request.param)) as model:
        yield model


STATISTICS = {
    "siglip": (np.full(3, 0.5, np.float32), np.full(3, 0.5, np.float32)),
    "intern_vit": (np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])),
}


@quick
@given(width=SIDES, height=SIDES, seed=st.integers(0, 2**32 - 1))
def test_preprocessing_is_that_of_the_reference(
    any_model: vila_engine.Model, width: int, height: int, seed: int
) -> None:
    mean, std = STATISTICS[any_model.info["vision"]["kind"]]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    if any_model.info["projector"] == "mlp_gelu" and width != height:  # the variant with "pad"
        side = max(width, height)
        square = Image.new("RGB", (side, side), tuple(int(255 * float(m)) for m in mean))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    found = any_model.preprocess(pixels)
    size = found.shape[-1]
    resized = pillow_bicubic(image, size, size)
    scaled = (resized * (1 / 255)).astype(np.float32)
    expected = ((scaled - mean) / std).transpose(2, 0, 1)[None]
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_wide_and_flat_pictures(any_model: vila_engine.Model, tmp_path: Path) -> None:
    """The extremes of shape, through a file."""
    for shape in ((1, 4000), (4000, 1), (1, 1)):
        path = tmp_path / "flat.png"
        Image.fromarray(np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)).save(path)
        assert np.isfinite(any_model.encode_image(path)).all()
