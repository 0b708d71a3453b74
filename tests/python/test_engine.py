"""The Python door: every method against the recorded outputs of the reference, and what answers carry."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vila_engine
from conftest import Converted
from PIL import Image
from support import PICTURES, VARIANTS, case_names, load_case
from vila_engine import _core

QUESTION = "<image>\nWhat is in the picture?"
WIDE = PICTURES / "wide.png"
LONG: dict[str, Any] = {"max_new_tokens": 24, "ignore_eos": True}


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_equals_the_recorded_reference(variant: str, converted: Converted) -> None:
    case = load_case(variant, case_names(variant)[0])
    with vila_engine.load(converted(variant), kv_cache="f32", conv_mode=case.conv) as model:
        assert model.prompt_text(case.messages, images=case.images) == case.entry["prompt"]
        assert model.prompt_ids(case.messages, images=len(case.images)) == case.arrays["input_ids"].tolist()
        logits = model.logits(case.messages, images=case.images)
        assert logits.dtype == np.float32
        assert logits.shape == (case.entry["sequence_length"], len(case.arrays["logits"][0]))
        found = logits[case.arrays["logit_positions"]]
        assert np.abs(found - case.arrays["logits"]).max() <= case.tolerance["logits"]
        for name, compute in (
            ("pixel_values", model.preprocess),
            ("vision_features", model.vision_features),
            ("projector_output", model.encode_image),
        ):
            if name in case.arrays:
                array = compute(case.images[0])
                assert array.dtype == np.float32
                expected = case.arrays[name][: len(array)] if name == "pixel_values" else case.arrays[name][0]
                assert array.shape == expected.shape
                assert np.abs(array - expected).max() <= case.tolerance[name]
        greedy = case.arrays["greedy_ids"].tolist()
        whole = model.generate(case.messages, images=case.images, max_new_tokens=len(greedy), ignore_eos=True)
        assert whole.token_ids == greedy
        assert whole.finish_reason == "length"
        assert whole.usage.prompt_tokens == case.entry["sequence_length"]
        assert whole.usage.image_tokens == len(case.images) * case.entry["visual_tokens_per_image"]
        assert whole.usage.completion_tokens == len(greedy)
        ended = model.generate(case.messages, images=case.images, max_new_tokens=len(greedy))
        stop = case.entry["stop_token_id"]
        expected_ids = greedy[: greedy.index(stop) + 1] if stop in greedy else greedy
        assert ended.token_ids == expected_ids
        assert ended.finish_reason == ("stop" if stop in greedy else "length")
        assert ended.text == case.entry["decoded_skip_special"].strip()


def test_streaming_gives_the_same_answer_piece_by_piece(model: vila_engine.Model) -> None:
    whole = model.generate(QUESTION, images=[WIDE], **LONG)
    pieces = list(model.stream(QUESTION, images=[WIDE], **LONG))
    assert [piece.token_id for piece in pieces] == whole.token_ids
    assert "".join(piece.text for piece in pieces).strip() == whole.text
    logits = model.logits(QUESTION, images=[WIDE])[-1].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    # Half a unit in the last place of a float32 near 6, twice: once in the logit, once in the result.
    assert pieces[0].logprob == pytest.approx(logprobs[pieces[0].token_id], abs=1e-6)


def test_timings_and_usage_are_those_of_the_run(model: vila_engine.Model) -> None:
    first = model.generate(QUESTION, images=[WIDE], **LONG)
    assert first.timings.load == model.info["load_seconds"] > 0
    assert first.timings.image > 0
    assert first.timings.prefill > 0
    assert first.timings.decode > 0
    assert first.usage.cached_tokens == 0
    again = model.generate(QUESTION, images=[WIDE], **LONG)
    assert again.timings.image == 0  # the picture is in the cache
    assert again.usage == dataclasses.replace(first.usage, cached_tokens=first.usage.prompt_tokens - 1)
    assert (again.text, again.token_ids) == (first.text, first.token_ids)
    other = model.generate(QUESTION, images=[PICTURES / "tall.png"], **LONG)
    mark = model.prompt_ids(QUESTION, images=1).index(-200)
    assert other.usage.cached_tokens == mark  # what stands before the picture
    assert other.timings.image > 0


def test_a_picture_may_be_given_in_any_form(model: vila_engine.Model) -> None:
    with Image.open(WIDE) as image:
        array = np.asarray(image.convert("RGB"))
        forms: list[Any] = [WIDE, str(WIDE), WIDE.read_bytes(), image, array, array[:, ::-1][:, ::-1]]
        features = [model.encode_image(form).tobytes() for form in forms]
    assert len(set(features)) == 1
    assert model.encode_image(PICTURES / "tall.png").tobytes() not in features


def test_media_without_marks_come_first(model: vila_engine.Model) -> None:
    assert model.prompt_text("Why?", images=2).count("<image>\n<image>\nWhy?") == 1
    assert model.prompt_ids("Why?", images=1) == model.prompt_ids("<image>\nWhy?", images=1)
    frames = [np.full((20, 30, 3), shade, np.uint8) for shade in (0, 90, 200)]
    counted = model.prompt_ids("<video>\nWhy?", videos=[3])
    assert counted == model.prompt_ids("<image>\n<image>\n<image>\nWhy?", images=3)
    assert counted == model.prompt_ids("Why?", videos=[frames])
    assert model.prompt_ids("Why?", videos=["unread.mp4"], num_video_frames=3) == counted
    as_images = model.logits("<image>\n<image>\n<image>\nWhy?", images=frames)
    assert np.array_equal(model.logits("<video>\nWhy?", videos=[frames]), as_images)
    assert np.array_equal(model.logits("Why?", videos=[np.stack(frames)]), as_images)


def test_messages_and_system_texts(model: vila_engine.Model) -> None:
    dialogue: list[vila_engine.ChatMessage] = [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "B."},
        {"role": "user", "content": "C?"},
    ]
    assert model.prompt_text(dialogue, system="Hi.") == "Hi. USER: A? ASSISTANT: B.</s>USER: C? ASSISTANT:"
    assert model.prompt_text([{"role": "system", "content": "Ho."}, *dialogue[:1]]) == "Ho. USER: A? ASSISTANT:"
    assert model.prompt_ids("A?") == model.tokenizer.encode(model.prompt_text("A?"))


def test_stop_strings_end_the_text_across_token_borders(model: vila_engine.Model) -> None:
    free = list(model.stream(QUESTION, images=[WIDE], max_new_tokens=40, ignore_eos=True))
    text = "".join(piece.text for piece in free)
    checked = 0
    for begin, length in itertools.product(range(1, len(text) - 4), (1, 3, 4)):
        stop = text[begin : begin + length]
        if text.index(stop) != begin or "\ufffd" in stop:
            continue
        pieces = list(model.stream(QUESTION, images=[WIDE], max_new_tokens=40, ignore_eos=True, stop=[stop]))
        assert "".join(piece.text for piece in pieces) == text[:begin]
        # The answer ends with the token that completes the stop string, whatever tokens it is cut into.
        shown = [len("".join(p.text for p in free[: n + 1])) for n in range(len(free))]
        assert len(pieces) == next(n for n, size in enumerate(shown) if size >= begin + length) + 1
        checked += len(pieces) >= 2
    assert checked >= 10
    result = model.generate(QUESTION, images=[WIDE], max_new_tokens=40, ignore_eos=True, stop=text[5:8])
    assert result.finish_reason == "stop"
    never = model.generate(QUESTION, images=[WIDE], max_new_tokens=40, ignore_eos=True, stop=["\x00never\x00", "\x01"])
    assert (never.finish_reason, never.text) == ("length", text.strip())


def test_a_chat_is_a_fresh_run_of_the_whole_dialogue(model: vila_engine.Model) -> None:
    chat = model.chat(system="Be brief.")
    first = chat.send("What is this?", images=[WIDE], **LONG)
    # Questions asked outside do not disturb the dialogue's cache.
    model.generate(QUESTION, images=[PICTURES / "tall.png"], max_new_tokens=2)
    second = chat.send("And <image>, is it taller?", images=[PICTURES / "tall.png"], **LONG)
    third = chat.send("Why?", **LONG)
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert third.usage.cached_tokens >= second.usage.prompt_tokens
    assert third.timings.image == 0
    assert third.usage.image_tokens == 2 * first.usage.image_tokens
    turns = ["<image>\nWhat is this?", first.text, "And <image>, is it taller?", second.text, "Why?", third.text]
    assert chat.messages == list(zip(["user", "assistant"] * 3, turns, strict=True))
    model._idle = None
    dialogue: list[Any] = [{"role": role, "content": text} for role, text in chat.messages[:-1]]
    fresh = model.generate(dialogue, images=[WIDE, PICTURES / "tall.png"], system="Be brief.", **LONG)
    assert (fresh.token_ids, fresh.usage.cached_tokens) == (third.token_ids, 0)
    chat.reset()
    assert chat.messages == []
    assert chat.send("What is this?", images=[WIDE], **LONG).token_ids == first.token_ids


def test_a_chat_takes_one_question_at_a_time(model: vila_engine.Model) -> None:
    chat = model.chat()
    open_stream = chat.stream("One?", **LONG)
    with pytest.raises(vila_engine.InvalidArgument, match=r"\[chat\] expected no open stream"):
        chat.send("Two?")
    open_stream.close()
    assert chat.messages == []  # nothing was answered
    for _ in chat.stream("One?", **LONG):
        break  # leaving the loop drops the stream, which ends the turn
    assert [role for role, _ in chat.messages] == ["user", "assistant"]
    with pytest.raises(vila_engine.InvalidArgument, match="marks and pictures differ"):
        chat.send("<image> and <image>?", images=[WIDE])
    assert len(chat.messages) == 2
    assert chat.send("Two?", **LONG).finish_reason == "length"


def test_a_closed_stream_gives_its_session_back(model: vila_engine.Model) -> None:
    with model.stream(QUESTION, images=[WIDE], **LONG) as stream:
        first = next(stream)
        stream.close()
        assert list(stream) == []
        result = stream.result()
    assert result.token_ids == [first.token_id]
    assert result.finish_reason == "cancelled"
    assert result.usage.completion_tokens == 1
    again = model.generate(QUESTION, images=[WIDE], **LONG)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_two_threads_get_the_answers_that_they_get_alone(model: vila_engine.Model) -> None:
    questions = [(QUESTION, [WIDE]), ("Describe <image>.", [PICTURES / "tall.png"]), ("Why?", [])]
    alone = [model.generate(text, images=images, max_new_tokens=60, ignore_eos=True) for text, images in questions]
    found: dict[int, list[list[int]]] = {}

    def ask(number: int) -> None:
        text, images = questions[number]
        found[number] = [
            model.generate(text, images=images, max_new_tokens=60, ignore_eos=True).token_ids for _ in range(5)
        ]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [result.token_ids] * 5 for number, result in enumerate(alone)}


def test_a_closed_model_says_so(folder: Path) -> None:
    with vila_engine.load(folder) as model:
        chat = model.chat()
        chat.send("Hi", max_new_tokens=1)
        stream = model.stream("Hi", max_new_tokens=3, ignore_eos=True)
        next(stream)
    assert len(list(stream)) == 2  # an open answer may end
    for call in (
        lambda: model.generate("Hi"),
        lambda: model.logits("Hi"),
        lambda: model.prompt_ids("Hi"),
        lambda: model.encode_image(WIDE),
        lambda: model.tokenizer,
        lambda: chat.send("Hi"),
    ):
        with pytest.raises(vila_engine.InvalidArgument, match=r"\[model\] expected an open model, got a closed one"):
            call()
    model.close()


def test_loading_options_are_honoured(folder: Path) -> None:
    with vila_engine.load(
        folder, threads=1, isa="scalar", memory="mapped", kv_cache="f16", max_context=150, conv_mode="plain"
    ) as model:
        info = model.info
        assert (info["threads"], info["isa"], info["max_context"], info["conv_mode"]) == (1, "scalar", 150, "plain")
        assert "mapped" in info["memory"]
        assert model.prompt_text("Hi") == "Hi"
        assert "scalar" in repr(model)
        short = model.generate("Hi", max_new_tokens=1000, ignore_eos=True)
        assert short.finish_reason == "length"
        assert short.usage.prompt_tokens + short.usage.completion_tokens == 150


def test_an_int8_cache_takes_about_half_the_memory(folder: Path) -> None:
    per_token = {}
    for kind in ("f16", "int8"):
        with vila_engine.load(folder, kv_cache=kind) as model:  # type: ignore[arg-type]
            shape = model.info["llm"]
            assert model.info["kv_cache"] == kind
            per_token[kind] = model.info["kv_cache_bytes_per_token"]
            rows = shape["n_layers"] * shape["n_kv_heads"]
            padded = -(-shape["head_dim"] // 16) * 16
            columns = shape["head_dim"] + padded
            assert per_token[kind] == rows * (2 * columns if kind == "f16" else columns + 2 * 4)
    assert per_token["int8"] < 0.65 * per_token["f16"]  # heads of the fixture are narrow, so scales weigh


def test_an_int8_cache_gives_the_same_whether_cached_or_not(folder: Path) -> None:
    with vila_engine.load(folder, kv_cache="int8") as model:
        first = model.generate("Hi there", max_new_tokens=6, ignore_eos=True)
        again = model.generate("Hi there", max_new_tokens=6, ignore_eos=True)
        assert again.usage.cached_tokens > 0
        assert again.token_ids == first.token_ids
        looked_up = model.generate("Hi there", max_new_tokens=6, ignore_eos=True, prompt_lookup=4)
        assert looked_up.token_ids == first.token_ids
        assert len(model.generate("Hi there", max_new_tokens=6, ignore_eos=True, num_beams=3).token_ids) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isa": "sse9"}, r'\[isa\] expected one of .*scalar, got "sse9"'),
        ({"isa": 3}, r"\[load\] isa: expected text, got int"),
        ({"threads": 0}, r"\[load\] threads: expected an integer in 1\.\."),
        ({"threads": "2"}, r"\[load\] threads: expected an integer, got str"),
        ({"threads": 10**6}, r"\[load\] threads: expected 0 \(choose\) to 1024, got 1000000"),
        ({"max_context": 10**6}, r"\[load\] max_context: expected 0 \(the checkpoint's\) to 4096, got 1000000"),
        ({"memory": "slow"}, r'\[load\] memory: expected "fast" or "mapped", got "slow"'),
        ({"kv_cache": "q8_0"}, r'\[load\] kv_cache: expected "f16", "f32" or "int8", got "q8_0"'),
        ({"conv_mode": "llava_v0"}, r'expected one of .*, got "llava_v0"'),
    ],
)
def test_wrong_loading_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((vila_engine.InvalidArgument, vila_engine.UnsupportedError), match=message):
        vila_engine.load(folder, **options)


@pytest.mark.parametrize(("value", "status"), [("scalar", 0), ("", 0), ("sse9", 2), ("neon", 2)])
def test_the_environment_may_choose_the_kernels(value: str, status: int, folder: Path) -> None:
    command = [sys.executable, "-m", "vila_engine", "inspect", str(folder), "--json"]
    environment = {**os.environ, "VILA_ISA": value}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == status, run.stderr
    if status == 0:
        expected = value or next(name for name, usable in _core.kernel_names() if usable)
        assert json.loads(run.stdout)["model"]["isa"] == expected
    else:
        assert run.stderr.count("\n") == 1
        assert value in run.stderr
        assert "expected" in run.stderr


def test_a_name_that_this_machine_cannot_run_is_an_error(folder: Path) -> None:
    unusable = [name for name, usable in _core.kernel_names() if not usable]
    for name in unusable:
        with pytest.raises(vila_engine.UnsupportedError, match=name):
            vila_engine.load(folder, isa=name)
    usable = [name for name, ok in _core.kernel_names() if ok]
    assert "scalar" in usable
    assert sorted(unusable + usable) == sorted(name for name, _ in _core.kernel_names())
