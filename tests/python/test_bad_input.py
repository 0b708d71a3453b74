"""Damaged model folders and bad requests: each gets its typed error, and everything else goes on."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import vila_engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import PICTURES
from vila_engine import CapacityError, CheckpointError, InvalidArgument, IoError, UnsupportedError

Header = dict[str, Any]
WIDE = PICTURES / "wide.png"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A model folder that may be damaged."""
    target = tmp_path / "damaged"
    shutil.copytree(folder, target)
    return target


def refused(path: Path, error: type[Exception], *texts: str, **options: Any) -> str:
    """The message of the error that loading gives; both ways of reading the file must agree about it."""
    messages = []
    for memory in ("fast", "mapped"):
        with pytest.raises(error) as caught:
            vila_engine.load(path, memory=memory, **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    for text in ("expected", *texts):
        assert text in messages[0]
    return messages[0]


def edit_header(path: Path, change: Callable[[Header], None], *, offset: int = 0) -> None:
    """Rewrites the header of model.safetensors; the numbers stay as they are."""
    file = path / "model.safetensors"
    data = file.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    file.write_bytes(struct.pack("<Q", len(text) + offset) + text + data[8 + size :])


def edit_config(path: Path, change: Callable[[Any], Any]) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")


def names(path: Path) -> list[str]:
    data = (path / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return [name for name in json.loads(data[8 : 8 + size]) if name != "__metadata__"]


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "nowhere", IoError, "nowhere")
    refused(tmp_path, IoError, "config.json")
    refused(folder / "config.json", IoError, "config.json")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(IoError, match=r"model\.safetensors: No such file"):
        vila_engine.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.3, 0.9, -1])
def test_truncated_weights(copy: Path, keep: float) -> None:
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(copy, CheckpointError, "model.safetensors")


def test_oversized_weights(copy: Path) -> None:
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0" * 100)
    refused(copy, CheckpointError, "model.safetensors")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**9, 1])
def test_wrong_header_sizes(copy: Path, size: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(struct.pack("<Q", size) + file.read_bytes()[8:])
    refused(copy, CheckpointError, "model.safetensors")


DAMAGE: dict[str, tuple[Callable[[Header, str], None], str]] = {
    "missing": (lambda header, name: header.pop(name), "nothing"),
    "unknown": (
        lambda header, name: header.update({"llm.extra": {**header[name], "shape": [0], "data_offsets": [0, 0]}}),
        "extra",
    ),
    "mistyped": (lambda header, name: header[name].update(dtype="I32"), "I32"),
    "another shape": (lambda header, name: header[name].update(shape=[32, 2]), "32"),
    "unknown type": (lambda header, name: header[name].update(dtype="Q7"), "Q7"),
    "negative shape": (lambda header, name: header[name].update(shape=[-64]), "-64"),
    "overflowing shape": (lambda header, name: header[name].update(shape=[2**62, 2**62]), ""),
    "shape that is no list": (lambda header, name: header[name].update(shape="64"), ""),
    "offsets beyond the end": (lambda header, name: header[name].update(data_offsets=[0, 10**12]), ""),
    "offsets backwards": (lambda header, name: header[name].update(data_offsets=[256, 0]), ""),
    "an entry that is no object": (lambda header, name: header.update({name: 3}), ""),
}


@pytest.mark.parametrize(("change", "got"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_tensors(copy: Path, change: Callable[[Header, str], None], got: str) -> None:
    name = "llm.model.norm.weight"
    assert name in names(copy)
    edit_header(copy, lambda header: change(header, name))
    refused(copy, CheckpointError, got, "norm" if got != "extra" else got)


def test_everything_that_is_missing_is_listed(copy: Path) -> None:
    gone = [name for name in names(copy) if "layernorm" in name]
    edit_header(copy, lambda header: [header.pop(name) for name in gone] and None)
    message = refused(copy, CheckpointError)
    assert len(gone) >= 4
    assert all(name in message for name in gone)


def test_a_damaged_folder_leaves_other_models_alone(copy: Path, model: vila_engine.Model) -> None:
    before = model.generate("Hi", max_new_tokens=5, ignore_eos=True).token_ids
    (copy / "config.json").write_text("{", encoding="utf-8")
    refused(copy, CheckpointError, "config.json")
    assert model.generate("Hi", max_new_tokens=5, ignore_eos=True).token_ids == before


CONFIGS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no object": (lambda c: [c], CheckpointError, "object"),
    "another format": (lambda c: {**c, "format_version": 99}, UnsupportedError, "99"),
    "no version": (lambda c: {k: v for k, v in c.items() if k != "format_version"}, CheckpointError, "format_version"),
    "unknown tower": (lambda c: {**c, "vision": {**c["vision"], "kind": "clip"}}, UnsupportedError, "clip"),
    "unknown projector": (
        lambda c: {**c, "projector": {**c["projector"], "kind": "qformer"}},
        UnsupportedError,
        "qformer",
    ),
    "unknown template": (lambda c: {**c, "prompt": {"conv_mode": "llava_v0"}}, UnsupportedError, "llava_v0"),
    "no layers": (lambda c: {**c, "llm": {**c["llm"], "n_layers": 0}}, CheckpointError, "n_layers"),
    "too many layers": (lambda c: {**c, "llm": {**c["llm"], "n_layers": 3}}, CheckpointError, "layers.2"),
    "heads that do not divide": (lambda c: {**c, "llm": {**c["llm"], "n_heads": 3}}, CheckpointError, ""),
    "huge width": (lambda c: {**c, "llm": {**c["llm"], "dim": 2**40}}, CheckpointError, "dim"),
    "text for a number": (lambda c: {**c, "llm": {**c["llm"], "dim": "64"}}, CheckpointError, "dim"),
    "small vocabulary": (lambda c: {**c, "llm": {**c["llm"], "vocab_size": 100}}, CheckpointError, "100"),
}


@pytest.mark.parametrize(("change", "error", "text"), CONFIGS.values(), ids=CONFIGS.keys())
def test_wrong_configurations(copy: Path, change: Callable[[Any], Any], error: type[Exception], text: str) -> None:
    edit_config(copy, change)
    refused(copy, error, text)


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a JSON document is."""
    found = [at] if at else []
    if isinstance(value, dict):
        found += [path for key, item in value.items() for path in paths_of(item, (*at, key))]
    elif isinstance(value, list) and len(value) < 20:
        found += [path for key, item in enumerate(value) for path in paths_of(item, (*at, key))]
    return found


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(-3, 300), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-5, 400), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def spare(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("spare") / "model"
    shutil.copytree(folder, target)
    return target


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_configuration_gives_typed_errors_only(
    folder: Path, spare: Path, data: st.DataObject
) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(paths_of(config)))
        parent = config
        for key in way:
            parent = parent[key]
        if data.draw(st.booleans()) and isinstance(parent, dict):
            del parent[last]
        else:
            parent[last] = data.draw(JUNK)
    (spare / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        model = vila_engine.load(spare, threads=1)
    except (CheckpointError, UnsupportedError, CapacityError) as error:
        assert "expected" in str(error)
        return
    with model:
        try:
            model.generate("<image>\nHi", images=[WIDE], max_new_tokens=2)
        except vila_engine.Error as error:
            assert not isinstance(error, vila_engine.InternalError)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_header_gives_typed_errors_only(folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    (size,) = struct.unpack("<Q", raw[:8])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 8 + size - 1))] = data.draw(st.integers(0, 255))
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(raw)
    try:
        vila_engine.load(tmp_path, threads=1).close()
    except vila_engine.Error as error:
        assert not isinstance(error, vila_engine.InternalError), error


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file with a header only."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 90)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


HUGE: npt.NDArray[np.uint8] = np.broadcast_to(np.uint8(7), (20_000, 20_000, 3))
BAD_PICTURES: dict[str, tuple[Any, type[Exception], str]] = {
    "text": (b"this is no picture", InvalidArgument, "expected a picture that Pillow can read"),
    "empty file": (b"", InvalidArgument, "expected a picture that Pillow can read"),
    "no file": ("nowhere.png", IoError, "nowhere.png: expected a picture file, got no such file"),
    "folder": (str(PICTURES), IoError, "expected a picture file, got a folder"),
    "this file": (__file__, InvalidArgument, "expected a picture that Pillow can read"),
    "cut PNG": (WIDE.read_bytes()[:300], InvalidArgument, "expected a whole picture"),
    "cut JPEG": (jpeg()[:300], InvalidArgument, "expected a whole picture"),
    "damaged PNG": (WIDE.read_bytes().replace(b"IDAT", b"IDXT"), InvalidArgument, "expected a"),
    "huge PNG": (png_that_claims(20_000, 20_000), InvalidArgument, "expected at most 89,478,485 pixels"),
    "large PNG": (png_that_claims(10_000, 10_000), InvalidArgument, "expected at most 89,478,485 pixels"),
    "huge array": (HUGE, InvalidArgument, "at most 89,478,485 pixels, got 20000 x 20000 = 400,000,000"),
    "empty array": (np.zeros((0, 5, 3), np.uint8), InvalidArgument, "[H, W, 3]"),
    "floats": (np.zeros((5, 5, 3), np.float32), InvalidArgument, "expected a uint8 array, got float32"),
    "two channels": (np.zeros((5, 5, 2), np.uint8), InvalidArgument, "got [5, 5, 2]"),
    "one row": (np.zeros(5, np.uint8), InvalidArgument, "got [5]"),
    "number": (3, InvalidArgument, "expected a path, bytes, a Pillow image or a uint8 array, got int"),
    "nothing": (None, InvalidArgument, "got NoneType"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("picture", "error", "message"), BAD_PICTURES.values(), ids=BAD_PICTURES.keys())
def test_bad_pictures(model: vila_engine.Model, picture: Any, error: type[Exception], message: str) -> None:
    chat = model.chat()
    first = chat.send("Hi", max_new_tokens=3, ignore_eos=True)
    open_stream = model.stream("Hi", max_new_tokens=6, ignore_eos=True)
    next(open_stream)
    for call in (
        lambda: model.generate("<image>", images=[picture]),
        lambda: model.encode_image(picture),
        lambda: chat.send("<image>", images=[picture]),
        lambda: model.generate("<video>", videos=[[WIDE, picture]]),
    ):
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)
    # Nothing was broken: the open answer, the dialogue and the model go on.
    assert len(list(open_stream)) == 5
    assert chat.send("And?", max_new_tokens=2, ignore_eos=True).usage.cached_tokens >= first.usage.prompt_tokens
    assert model.generate("Hi", max_new_tokens=3, ignore_eos=True).token_ids == first.token_ids


BAD_REQUESTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "too few pictures": (
        {"query": "<image> and <image>", "images": [WIDE]}, InvalidArgument,
        "[prompt] <image> marks and pictures differ: expected 2 pictures for 2 marks, got 1",
    ),
    "too many pictures": (
        {"query": "only <image>", "images": [WIDE] * 3}, InvalidArgument, "expected 1 pictures for 1 marks, got 3"),
    "no picture": ({"query": "<image>"}, InvalidArgument, "expected 1 pictures for 1 marks, got 0"),
    "no video": ({"query": "<video>"}, InvalidArgument, "expected 1 videos for 1 marks, got 0"),
    "too many videos": (
        {"query": "<video>", "videos": [[WIDE], [WIDE]]}, InvalidArgument, "expected 1 videos for 1 marks, got 2"),
    "video without frames": ({"query": "Hi", "videos": [[]]}, InvalidArgument, "expected at least 1 frame, got an"),
    "too long": ({"query": "word " * 5000}, CapacityError, "[prompt] too long for the context: expected at most 4095"),
    "too many pictures for the context": (
        {"query": "Hi", "images": [WIDE] * 300}, CapacityError, "of them 4800 for 300 pictures"),
    "a path for pictures": ({"query": "Hi", "images": str(WIDE)}, InvalidArgument, "a list of pictures, got str"),
    "a picture for pictures": (
        {"query": "Hi", "images": np.zeros((4, 4, 3), np.uint8)}, InvalidArgument, "a list of pictures, got ndarray"),
    "a path for videos": ({"query": "Hi", "videos": "a.mp4"}, InvalidArgument, "expected a list of videos, got str"),
    "a number for a video": ({"query": "Hi", "videos": [3]}, InvalidArgument, "a path or a list of frames, got int"),
    "frames 0": ({"query": "Hi", "videos": [[WIDE]], "num_video_frames": 0}, InvalidArgument, "num_video_frames"),
    "bytes": ({"query": b"Hi"}, InvalidArgument, "expected text or a list of messages, got bytes"),
    "nothing": ({"query": None}, InvalidArgument, "expected text or a list of messages, got nothing"),
    "texts": ({"query": ["Hi"]}, InvalidArgument, "expected messages"),
    "a message too much": ({"query": [{"role": "user"}]}, InvalidArgument, "expected messages"),
    "a role that is no text": ({"query": [{"role": 1, "content": "Hi"}]}, InvalidArgument, "role: expected text, got"),
    "an unknown role": ({"query": [{"role": "tool", "content": "Hi"}]}, InvalidArgument, "tool"),
    "no message": ({"query": []}, InvalidArgument, "expected"),
    "half a character": ({"query": "a\ud800"}, InvalidArgument, "expected Unicode text, got a lone surrogate at 1"),
    "system": ({"query": "Hi", "system": 3}, InvalidArgument, "[prompt] system: expected text, got int"),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "error", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_requests(model: vila_engine.Model, request_: dict[str, Any], error: type[Exception], message: str) -> None:
    open_stream = model.stream("Hi", max_new_tokens=6, ignore_eos=True)
    next(open_stream)
    for method in (model.generate, model.stream, model.logits):
        with pytest.raises(error) as caught:
            method(**request_)
        assert message in str(caught.value)
    assert len(list(open_stream)) == 5
    assert model.generate("Hi", max_new_tokens=6, ignore_eos=True).finish_reason == "length"


def test_capacity_errors_carry_numbers(folder: Path) -> None:
    with vila_engine.load(folder, max_context=120) as model:
        need = len(model.prompt_ids("word " * 60))
        with pytest.raises(CapacityError, match=f"expected at most 119 tokens, got {need}") as caught:
            model.generate("word " * 60)
        assert (caught.value.needed, caught.value.available) == (need + 1, 120)


def test_errors_have_the_bases_of_python() -> None:
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(IoError, OSError)
    for error in (
        InvalidArgument,
        IoError,
        CheckpointError,
        UnsupportedError,
        CapacityError,
        vila_engine.InternalError,
    ):
        assert issubclass(error, vila_engine.Error)
        assert error.__module__ == "vila_engine"
