"""The command line: every command, its output for machines, exit statuses, and what happens when things go wrong."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vila_engine
from PIL import Image
from support import GOLDEN, PICTURES, load_case
from vila_engine import _core, cli

COMMANDS = ("convert", "describe", "chat", "inspect", "parity")
WIDE = str(PICTURES / "wide.png")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("inspect", ..., stdin="") -> (exit status, stdout, stderr), in this process."""

    def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse: help, version and wrong arguments
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vila_engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


def test_help_has_an_example_of_every_command(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert all(re.search(rf"^ +{name} ", out, re.MULTILINE) for name in COMMANDS)
    for name in COMMANDS:
        status, out, _ = run(name, "--help")
        assert status == 0
        examples = out[out.index("examples:") :].splitlines()[1:]
        assert examples
        assert all(line.startswith(f"  vila-engine {name}") for line in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_help_parse(name: str, run: Run) -> None:
    _, out, _ = run(name, "--help")
    for line in out[out.index("examples:") :].splitlines()[1:]:
        words = shlex.split(line.partition("<<<")[0])[1:]
        assert cli._parser().parse_args(words).run is not None


def test_the_published_calls_of_the_original_parse() -> None:
    """The original's flags, with the model as an argument."""
    line = r"""describe M --query "<image>\n Please describe the traffic condition." --image av.png"""
    parsed = cli._parser().parse_args(shlex.split(line))
    assert cli._query(parsed.query) == "<image>\n Please describe the traffic condition."
    assert parsed.image == ["av.png"]
    line = "describe M --video demo.mp4 --num-video-frames 8 --conv-mode vicuna_v1"
    parsed = cli._parser().parse_args(shlex.split(line))
    assert (parsed.video, parsed.num_video_frames, parsed.conv_mode) == (["demo.mp4"], 8, "vicuna_v1")


def test_describe_equals_the_reference(folder: Path, run: Run) -> None:
    case = load_case("vila3b", "single_wide")
    query = case.entry["turns"][0].replace("\n", "\\n")
    status, out, err = run("describe", folder, "--query", query, "--image", case.images[0], "--max-new-tokens", 32)
    assert (status, err) == (0, "")
    assert out == case.entry["decoded_skip_special"].strip() + "\n"
    status, out, _ = run(
        "describe", folder, "--query", "-", "--image", WIDE, "--json", "--ignore-eos", "--max-new-tokens", 32,
        stdin=case.entry["turns"][0],
    )  # fmt: skip
    answer = json.loads(out)
    assert answer["token_ids"] == case.arrays["greedy_ids"].tolist()
    assert answer["usage"]["prompt_tokens"] == case.entry["sequence_length"]
    assert set(answer) == {"text", "token_ids", "finish_reason", "usage", "timings"}
    assert set(answer["timings"]) == {"load", "image", "prefill", "decode"}


def test_describe_takes_all_options(folder: Path, run: Run, model: vila_engine.Model) -> None:
    tall = str(PICTURES / "tall.png")
    status, out, err = run(
        "describe", folder, "--query", "<image> and <image>?", "--image", WIDE, "--image", tall, "--conv-mode", "plain",
        "--threads", 1, "--isa", "scalar", "--memory", "mapped",
        "--kv-cache", "int8", "--temperature", 0.8, "--top-p", 0.9, "--top-k", 50,
        "--min-p", 0.01, "--repetition-penalty", 1.1, "--seed", 5, "--max-new-tokens", 9, "--ignore-eos", "--json",
        "--stats", "--stop", "never", "--stop", "ever",
    )  # fmt: skip
    assert status == 0
    answer = json.loads(out)
    assert answer["usage"]["image_tokens"] == 32
    assert answer["usage"]["completion_tokens"] == 9
    assert re.fullmatch(r"\[\d+ prompt tokens \(32 of pictures, 0 cached\), 9 new, length; load .* tokens/s\]\n", err)
    _, beams, _ = run("describe", folder, "--query", "Hi", "--num-beams", 3, "--max-new-tokens", 5, "--json")
    assert json.loads(beams)["token_ids"] == model.generate("Hi", num_beams=3, max_new_tokens=5).token_ids
    _, int8, _ = run("describe", folder, "--query", "Hi", "--kv-cache", "int8", "--max-new-tokens", 5, "--json")
    with vila_engine.load(folder, kv_cache="int8") as small:
        assert json.loads(int8)["token_ids"] == small.generate("Hi", max_new_tokens=5).token_ids
    _, system, _ = run("describe", folder, "--query", "Hi", "--system", "Be brief.", "--max-new-tokens", 5, "--json")
    assert json.loads(system)["token_ids"] == model.generate("Hi", system="Be brief.", max_new_tokens=5).token_ids


def test_describe_reads_videos(folder: Path, run: Run, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(6)]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    for count in (3, 8):
        arguments = ("--query", "<video>\\nWhat happens?", "--video", path, "--max-new-tokens", 2, "--json")
        status, out, _ = run("describe", folder, *arguments, "--num-video-frames", count)
        assert status == 0
        assert json.loads(out)["usage"]["image_tokens"] == 16 * count


def test_chat_answers_line_by_line(folder: Path, run: Run, model: vila_engine.Model) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "ignore_eos": True}
    flags = ("--max-new-tokens", 12, "--ignore-eos")
    chat = model.chat()
    first = chat.send("What is this?", images=[WIDE], **options).text
    second = chat.send("And\nthis?", images=[PICTURES / "tall.png"], **options).text
    chat.reset()
    third = chat.send("Again?", **options).text
    tall = PICTURES / "tall.png"
    lines = f"What is this?\n\n/image {tall}\nAnd\\nthis?\n/reset\nAgain?\n/quit\nnot read\n"
    status, out, err = run("chat", folder, "--image", WIDE, *flags, stdin=lines)
    assert (status, err) == (0, "")
    assert out == f"{first}\n{second}\n{third}\n"
    status, out, _ = run("chat", folder, "--image", WIDE, *flags, "--json", stdin=lines)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["text"] for answer in answers] == [first, second, third]
    assert answers[1]["usage"]["cached_tokens"] >= answers[0]["usage"]["prompt_tokens"]
    status, out, err = run("chat", folder, *flags, stdin="Hi\n/image nowhere.png\nWhat?\nnot asked\n")
    assert status == 2
    assert err == "vila-engine: [picture] nowhere.png: expected a picture file, got no such file\n"
    assert out.count("\n") >= 1


def test_inspect_shows_the_machine_and_the_model(folder: Path, run: Run) -> None:
    status, out, _ = run("inspect", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["version"] == vila_engine.__version__
    kernels = [(kernel["name"], kernel["usable"]) for kernel in report["kernels"]]
    assert kernels == _core.kernel_names()
    assert [kernel["name"] for kernel in report["kernels"] if kernel["chosen"]] == [_core.chosen_kernels()]
    status, out, _ = run("inspect", folder, "--json")
    info = json.loads(out)["model"]
    assert info["llm"]["vocab_size"] == 352
    status, out, _ = run("inspect", folder)
    assert status == 0
    for text in ("chosen", "vocabulary 352", "siglip", "mlp_downsample", "16 tokens per picture", "vicuna_v1"):
        assert text in out


def test_convert_writes_a_model_that_answers(tmp_path: Path, run: Run) -> None:
    source = GOLDEN / "vila3b" / "checkpoint"
    target = tmp_path / "model"
    status, out, err = run("convert", source, "-o", target, "--weights", "int8", "--json")
    assert (status, err) == (0, "")  # no progress bar: stderr is no terminal
    report = json.loads(out)
    assert Path(report["path"]) == target
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    status, _, err = run("convert", source, "-o", target)
    assert status == 2
    assert err.startswith("vila-engine: [convert]")
    assert "--force" in err
    status, out, _ = run("convert", source, "-o", target, "--weights", "f32", "--force", "--conv-mode", "plain")
    assert status == 0
    assert "plain" in out
    status, out, _ = run("describe", target, "--query", "Hi", "--max-new-tokens", 3, "--json")
    assert status == 0
    assert json.loads(out)["usage"]["completion_tokens"] >= 1


def test_parity_prints_a_table(run: Run) -> None:
    status, out, err = run("parity", GOLDEN / "llama3_nobos", "--isa", "all", "--threads", 1, 2)
    assert (status, err) == (0, "")
    n = 3 * 2 * sum(usable for _, usable in _core.kernel_names())
    assert out.endswith(f"{n} cases, 0 with a broken bound (marked !); = is exact equality\n")
    assert len(out.splitlines()) == n + 2
    status, _, err = run("parity", GOLDEN / "llama3_nobos", "--isa", "sse9")
    assert status == 2
    assert "sse9" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("describe", "nowhere"), "nowhere"),
        (("describe", "MODEL", "--image", "nowhere.png"), "expected a picture file, got no such file"),
        (("describe", "MODEL", "--query", "<image>"), "expected 1 pictures for 1 marks, got 0"),
        (("describe", "MODEL", "--video", "nowhere.mp4"), "expected a video file, got no such file"),
        (("describe", "MODEL", "--temperature", "-1"), "temperature: expected a finite number >= 0"),
        (("describe", "MODEL", "--threads", "0"), "[load] threads: expected an integer in 1.."),
        (("describe", "MODEL", "--isa", "sse9"), 'got "sse9"'),
        (("chat", "nowhere"), "nowhere"),
        (("inspect", "nowhere"), "nowhere"),
        (("parity", "nowhere"), "[parity] nowhere: expected a golden folder"),
        (("convert", "/nowhere", "-o", "/tmp/never"), "/nowhere"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str, folder: Path, run: Run) -> None:
    words = [str(folder) if word == "MODEL" else word for word in arguments]
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("vila-engine: [")
    assert err.count("\n") == 1
    assert message in err


def test_an_unknown_cache_type_is_refused_with_the_known_ones(folder: Path, run: Run) -> None:
    status, out, err = run("describe", str(folder), "--kv-cache", "q8_0")
    assert (status, out) == (2, "")
    assert re.search(r"--kv-cache: invalid choice: 'q8_0' \(choose from '?f16'?, '?int8'?\)$", err.strip())


@pytest.mark.parametrize(
    "arguments",
    ["", "fly", "describe", "describe M --threads two", "convert M", "convert M -o N --weights int2", "parity"],
)
def test_wrong_arguments_show_the_usage(arguments: str, run: Run) -> None:
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err.startswith("usage: vila-engine")


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).with_name("vila-engine")
    version = f"vila-engine {vila_engine.__version__}\n"
    assert (
        subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout == version
    )
    assert program("--version").stdout.decode() == version


def test_a_process_ends_without_a_traceback(folder: Path) -> None:
    done = program("describe", folder, "--image", "nowhere.png")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr == b"vila-engine: [picture] nowhere.png: expected a picture file, got no such file\n"


def test_nobody_reads_the_output(folder: Path) -> None:
    """As in `vila-engine describe ... | head -c 1`."""
    command = [sys.executable, "-m", "vila_engine", "describe", str(folder), "--query", "Hi", "--ignore-eos"]
    command += ["--max-new-tokens", "3000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr.read() == b""
    # Output that is only written at the end fails there.
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vila_engine", "inspect"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_any_terminal_and_any_input(folder: Path) -> None:
    """A terminal that knows ASCII only, and a question that is no UTF-8."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = program("describe", folder, "--query", "Hi", "--ignore-eos", "--max-new-tokens", 60, env=environment)
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
    done = program("chat", folder, "--max-new-tokens", 3, input=b"caf\xe9 \xff?\n")
    assert done.returncode == 0, done.stderr


def test_progress_is_for_terminals_only(folder: Path, tmp_path: Path) -> None:
    """The bar of conversion and the counter of parity appear on a terminal, on stderr."""
    for arguments in (
        ("convert", GOLDEN / "vila3b" / "checkpoint", "-o", tmp_path / "model"),
        ("parity", GOLDEN / "llama3_nobos"),
    ):
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        command = [sys.executable, "-m", "vila_engine", *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower) as process:
            os.close(follower)
            shown = read_all(leader)
            assert process.stdout is not None
            out = process.stdout.read()
            assert process.wait(120) == 0
        assert b"\r" in shown
        assert b"\r" not in out


def read_all(descriptor: int) -> bytes:
    """What a terminal shows until its last writer is gone."""
    data = b""
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # how Linux reports the end
            break
        if not part:
            break
        data += part
    os.close(descriptor)
    return data
