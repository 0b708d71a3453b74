"""Stopping an answer: cancel() and close() from other threads, Ctrl-C; and the GIL, which is free meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vila_engine

N_PICTURES = 40
PICTURES = [np.full((8, 8, 3), shade, np.uint8) for shade in range(N_PICTURES)]
PATIENCE = 60.0
"""Seconds until a test gives up; nothing here depends on how fast a machine is."""

ENDLESS: dict[str, Any] = {"max_new_tokens": 10_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def slow_model(folder: Path) -> Iterator[vila_engine.Model]:
    """One thread of the slowest kernels, so that there is something to interrupt."""
    with vila_engine.load(folder, threads=1, isa="scalar") as model:
        yield model


def stop_before_the_first_token(
    model: vila_engine.Model, query: str, images: list[Any], *, needs_pictures: bool
) -> vila_engine.Result:
    """Cancels an answer while its prompt is being run; several moments are tried."""
    with model.stream(query, images=images, max_new_tokens=1, ignore_eos=True) as whole:
        begin = time.monotonic()
        next(whole)
        seconds = time.monotonic() - begin
    for part in (0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.1, 0.9) * 3:
        model._idle = None
        with model.stream(query, images=images, **ENDLESS) as stream:
            timer = threading.Timer(part * seconds, stream.cancel)
            timer.start()
            result = stream.result()
            timer.join()
        assert result.finish_reason == "cancelled"
        started = result.timings.prefill > 0 and (result.timings.image > 0 or not needs_pictures)
        if started and result.usage.completion_tokens == 0:
            return result
    pytest.fail("found no moment inside the prompt")


def test_cancel_inside_the_prompt(slow_model: vila_engine.Model) -> None:
    text = "word " * 150
    result = stop_before_the_first_token(slow_model, text, [], needs_pictures=False)
    assert result.text == ""
    # The model goes on, from what was computed: at least one chunk, not the whole prompt.
    after = slow_model.generate(text, max_new_tokens=4, ignore_eos=True)
    assert 0 <= after.usage.cached_tokens < after.usage.prompt_tokens - 1
    slow_model._idle = None
    fresh = slow_model.generate(text, max_new_tokens=4, ignore_eos=True)
    assert (after.finish_reason, after.token_ids) == ("length", fresh.token_ids)


def test_cancel_between_and_inside_pictures(slow_model: vila_engine.Model) -> None:
    query = "<image>" * N_PICTURES
    result = stop_before_the_first_token(slow_model, query, PICTURES, needs_pictures=True)
    after = slow_model.generate(query, images=PICTURES, max_new_tokens=4, ignore_eos=True)
    assert after.usage.cached_tokens < after.usage.prompt_tokens - 1
    assert after.timings.image > 0  # some pictures were not reached
    assert result.usage.image_tokens == after.usage.image_tokens == 16 * N_PICTURES
    slow_model._idle = None
    fresh = slow_model.generate(query, images=PICTURES, max_new_tokens=4, ignore_eos=True)
    assert after.token_ids == fresh.token_ids


def test_cancel_before_the_start_computes_nothing(slow_model: vila_engine.Model) -> None:
    stream = slow_model.stream("Hi", **ENDLESS)
    stream.cancel()
    result = stream.result()
    assert (result.token_ids, result.finish_reason, result.timings.prefill) == ([], "cancelled", 0)


def test_cancel_during_the_answer(slow_model: vila_engine.Model) -> None:
    stream = slow_model.stream("Hi", max_new_tokens=3000, ignore_eos=True)
    first = next(stream)
    threading.Timer(0.01, stream.cancel).start()
    result = stream.result()
    assert result.finish_reason == "cancelled"
    assert result.token_ids[0] == first.token_id
    assert 1 <= result.usage.completion_tokens < 3000
    again = slow_model.generate("Hi", max_new_tokens=len(result.token_ids), ignore_eos=True)
    assert again.token_ids == result.token_ids


def test_beams_can_be_cancelled(slow_model: vila_engine.Model) -> None:
    stream = slow_model.stream("Hi", max_new_tokens=3000, ignore_eos=True, num_beams=20)
    threading.Timer(0.2, stream.cancel).start()
    result = stream.result()
    assert (result.finish_reason, result.token_ids) == ("cancelled", [])
    assert slow_model.generate("Hi", max_new_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_closing_from_another_thread_waits_for_the_one_that_computes(slow_model: vila_engine.Model) -> None:
    for delay in (0.0, 0.01, 0.05, 0.1):
        stream = slow_model.stream("word " * 150, **ENDLESS)
        results: list[vila_engine.Result] = []
        thread = threading.Thread(target=lambda s=stream, r=results: r.append(s.result()))
        thread.start()
        time.sleep(delay)
        stream.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert results[0].finish_reason == "cancelled"
    assert slow_model.generate("Hi", max_new_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_two_threads_may_pull_one_stream(model: vila_engine.Model) -> None:
    expected = model.generate("Hi", max_new_tokens=200, ignore_eos=True).token_ids
    stream = model.stream("Hi", max_new_tokens=200, ignore_eos=True)
    pulled: list[list[int]] = [[], []]
    threads = [
        threading.Thread(target=lambda into=into: into.extend(piece.token_id for piece in stream)) for into in pulled
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(pulled[0] + pulled[1]) == sorted(expected)


@pytest.mark.parametrize("method", ["logits", "generate", "vision_features", "encode_image", "preprocess"])
def test_other_threads_run_meanwhile(model: vila_engine.Model, method: str) -> None:
    """This thread gets the GIL again and again while the other one is in a single call of the engine."""
    big = np.zeros((4000, 4000, 3), np.uint8)  # keeps the resize busy
    calls: dict[str, Callable[[], object]] = {
        "logits": lambda: model.logits("word " * 900),
        "generate": lambda: model.generate("word " * 900, max_new_tokens=1),
        "vision_features": lambda: model._core.vision_features(big),
        "encode_image": lambda: model._core.encode_image(big),
        "preprocess": lambda: model._core.preprocess(big),
    }
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        try:
            calls[method]()
        finally:
            done.set()

    steps = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # a thread that holds the GIL now keeps it until it lets go of it
    try:
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(PATIENCE)
        while not done.is_set():
            steps += 1
            time.sleep(0.0005)
        thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    assert steps >= 2  # 0 if the call kept the GIL


# What was started in the background ignores interrupts, and so would its children.
HEARING = ("env", "--default-signal=INT")

SCRIPT = """
import sys, vila_engine
model = vila_engine.load(sys.argv[1], threads=1, isa="scalar")
chat = model.chat()
chat.send("Hi", max_new_tokens=2, ignore_eos=True)
stream = model.stream(sys.argv[2] * int(sys.argv[3]), max_new_tokens=4000, ignore_eos=True)
if sys.argv[4] == "decode":
    next(stream)
print("started", flush=True)
try:
    for piece in stream:
        pass
    print("not interrupted", flush=True)
except KeyboardInterrupt:  # raised inside the call, which closes the stream, or between two calls
    stream.close()
    result = stream.result()
    print(result.finish_reason, result.usage.completion_tokens, flush=True)
print(chat.send("And?", max_new_tokens=3, ignore_eos=True).usage.completion_tokens, flush=True)
"""


@pytest.mark.parametrize("where", ["prompt", "decode"])
def test_control_c_is_a_keyboard_interrupt(where: str, folder: Path) -> None:
    words = 400 if where == "prompt" else 1
    command = [*HEARING, sys.executable, "-c", SCRIPT, str(folder), "word ", str(words), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        reason, count = process.stdout.readline().split()
        assert reason == "cancelled"
        assert (int(count) == 0) == (where == "prompt")
        assert process.stdout.readline() == "3\n"  # another session goes on
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("where", ["prompt", "decode"])
def test_control_c_ends_the_command(where: str, folder: Path, tmp_path: Path) -> None:
    words = 400 if where == "prompt" else 1
    command = [*HEARING, sys.executable, "-m", "vila_engine", "describe", str(folder), "--query", "-", "--ignore-eos"]
    command += ["--max-new-tokens", "4000", "--threads", "1", "--isa", "scalar"]
    source = tmp_path / "question.txt"
    source.write_text("word " * words, encoding="utf-8")
    with (
        source.open() as question,
        subprocess.Popen(
            command,
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        if where == "decode":
            assert process.stdout.read(1)
        else:
            wait_until_it_reads(process, source)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b"vila-engine: interrupted\n"


def wait_until_it_reads(process: subprocess.Popen[bytes], source: Path) -> None:
    """Until the process has read its question to the end: the model is loaded afterwards, the prompt is next."""
    size = source.stat().st_size
    position = Path(f"/proc/{process.pid}/fdinfo/0")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if position.read_text(encoding="ascii").split()[1] == str(size):
            time.sleep(0.2)
            return
        time.sleep(0.005)
    pytest.fail("the question was not read")
