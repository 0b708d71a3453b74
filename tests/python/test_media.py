"""Pictures of all of Pillow's modes and videos of all lengths, down to the bytes that enter the engine."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import PICTURES
from vila_engine import InvalidArgument, IoError, UnsupportedError, media

Pixels = npt.NDArray[np.uint8]
RNG = np.random.default_rng(5)
COLOURS: Pixels = RNG.integers(0, 256, (17, 23, 3), np.uint8)
GREY: Pixels = RNG.integers(0, 256, (17, 23), np.uint8)
ALPHA: Pixels = RNG.integers(0, 256, (17, 23), np.uint8)
REPEATED = np.repeat(GREY[:, :, None], 3, axis=2)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_lossless_webp_gives_the_pixels_of_png(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(file_of(Image.fromarray(COLOURS), "WEBP", lossless=True))
    assert np.array_equal(media.load_image(tmp_path / "a.webp"), COLOURS)


def test_alpha_is_dropped_and_grey_replicated() -> None:
    rgba = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    la = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    assert np.array_equal(media.load_image(rgba), COLOURS)
    assert np.array_equal(media.load_image(file_of(rgba, "PNG")), COLOURS)
    assert np.array_equal(media.load_image(file_of(la, "PNG")), REPEATED)
    assert np.array_equal(media.load_image(file_of(Image.fromarray(GREY), "PNG")), REPEATED)
    assert np.array_equal(media.load_image(GREY), REPEATED)
    assert np.array_equal(media.load_image(np.dstack([COLOURS, ALPHA])), COLOURS)
    # Alpha is dropped, not blended: colours under full transparency stay.
    assert np.array_equal(media.load_image(Image.fromarray(np.dstack([COLOURS, np.zeros_like(ALPHA)]))), COLOURS)


def test_palettes_and_bits() -> None:
    palette = Image.new("P", (23, 17))
    colours = RNG.integers(0, 256, (16, 3), np.uint8)
    palette.putdata((GREY // 16).ravel().tolist())
    palette.putpalette(colours.ravel().tolist())
    expected = colours[GREY // 16]
    assert np.array_equal(media.load_image(palette), expected)
    assert np.array_equal(media.load_image(file_of(palette, "PNG")), expected)
    assert np.array_equal(media.load_image(file_of(palette, "GIF")), expected)
    assert np.array_equal(media.load_image(file_of(palette, "PNG", transparency=3)), expected)
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    assert np.array_equal(media.load_image(bits), np.repeat(np.where(GREY > 127, 255, 0)[:, :, None], 3, axis=2))


def test_cmyk_is_converted_as_pillow_does() -> None:
    """Pillow without colour profiles: each colour is (255 - ink) * (255 - black) / 255."""
    inks = np.dstack([COLOURS, ALPHA])
    image = Image.frombytes("CMYK", (23, 17), inks.tobytes())
    light = 255 - COLOURS.astype(np.int64)
    expected = light * (255 - ALPHA[:, :, None].astype(np.int64)) / 255
    found = media.load_image(image)
    assert np.abs(found - expected).max() <= 1  # it divides by 255 in integers
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_wide_grey_is_what_pillow_makes_of_it(mode: str, tmp_path: Path) -> None:
    """The reference calls convert("RGB"), which clips such pictures instead of scaling them; so do we."""
    wide = np.arange(17 * 23).reshape(17, 23) * 3 - (0 if mode == "I;16" else 100)
    image = Image.fromarray(wide.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    path = tmp_path / "wide.tiff"
    image.save(path)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(media.load_image(image), expected)
    assert np.array_equal(media.load_image(path), expected)


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = file_of(Image.fromarray(COLOURS), "PNG", exif=exif)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert np.array_equal(media.load_image(data), COLOURS)


def test_animations_show_their_first_picture() -> None:
    frames = [Image.fromarray(np.full((5, 6, 3), shade, np.uint8)) for shade in (10, 200)]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (media.load_image(data) == 10).all()


def test_views_of_arrays_need_not_be_contiguous() -> None:
    view = COLOURS[::2, ::-1]
    assert np.array_equal(media.load_image(view), view)
    assert media.load_image(view).flags.c_contiguous


def test_pictures_that_only_break_when_they_are_read() -> None:
    lazy = Image.open(io.BytesIO((PICTURES / "wide.png").read_bytes()[:400]))
    with pytest.raises(InvalidArgument, match=r"\[picture\] a Pillow image of mode RGB: expected a whole picture"):
        media.load_image(lazy)
    with pytest.raises(InvalidArgument, match="expected at least 1 x 1 pixels, got 0 x 5"):
        media.load_image(Image.new("RGB", (0, 5)))


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=60), cut=st.integers(0, 2000), at=st.integers(0, 2000), value=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_a_picture_or_a_typed_error(data: bytes, cut: int, at: int, value: int) -> None:
    damaged = bytearray((PICTURES / "square.png").read_bytes())
    damaged[at % len(damaged)] = value
    for candidate in (data, bytes(damaged), bytes(damaged[:cut])):
        try:
            picture = media.load_image(candidate)
        except InvalidArgument as error:
            assert "expected" in str(error)
        else:
            assert picture.dtype == np.uint8


def reference_indices(n_frames: int, n_samples: int) -> list[int]:
    """trunc(linspace(0, n - 2, k)) in exact fractions."""
    return [i * (n_frames - 2) // max(n_samples - 1, 1) for i in range(n_samples)]


@given(n_frames=st.integers(2, 3000), n_samples=st.integers(1, 64))
def test_frames_are_sampled_as_by_the_reference(n_frames: int, n_samples: int) -> None:
    if n_frames <= n_samples:
        return
    indices = media.sample_indices(n_frames, n_samples)
    # The reference's linspace is in floating point, which may fall just short of a whole number: then it is one less.
    for index, exact in zip(indices, reference_indices(n_frames, n_samples), strict=True):
        assert index in (exact - 1, exact)
    assert indices == np.linspace(0, n_frames - 2, n_samples, dtype=int).tolist()
    assert indices[0] == 0
    assert indices[-1] == (n_frames - 2 if n_samples > 1 else 0)


def test_known_sampling() -> None:
    assert media.sample_indices(30, 6) == [0, 5, 11, 16, 22, 28]
    assert media.sample_indices(9, 8) == [0, 1, 2, 3, 4, 5, 6, 7]


def shades(frames: list[Pixels]) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize(
    ("n", "k", "expected"), [(30, 6, [0, 5, 11, 16, 22, 28]), (4, 4, [0, 1, 2, 3]), (3, 8, [0, 1, 2])]
)
def test_lists_of_frames(n: int, k: int, expected: list[int]) -> None:
    frames = [np.full((4, 5, 3), shade, np.uint8) for shade in range(n)]
    assert shades(media.load_video(frames, k)) == expected
    assert shades(media.load_video(np.stack(frames), k)) == expected
    assert media.count_frames(frames, k) == len(expected)
    assert shades(media.load_video([Image.fromarray(frame) for frame in frames], k)) == expected


Video = Callable[..., Path]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """video(n) -> an mp4 file whose frame i is grey with value 8 i."""
    folder = tmp_path_factory.mktemp("videos")

    def make(n_frames: int, size: str = "64x48") -> Path:
        path = folder / f"{n_frames}-{size}.mp4"
        if not path.exists():
            width, height = map(int, size.split("x"))
            data = b"".join(np.full((height, width, 3), 8 * i, np.uint8).tobytes() for i in range(n_frames))
            command = [
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-v",
                "error",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24",
                "-s",
                size,
            ]
            command += [
                "-r",
                "10",
                "-i",
                "-",
                "-c:v",
                "libx264",
                "-qp",
                "0",
                "-pix_fmt",
                "yuv444p",
                "-bf",
                "2",
                str(path),
            ]
            subprocess.run(command, input=data, check=True, capture_output=True, timeout=60)
        return path

    return make


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [
        (30, 6, [0, 5, 11, 16, 22, 28]),
        (20, 1, [0]),
        (9, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),  # the reference raises here; all frames is what anybody expects
        (3, 8, [-1, -1, -1, -1, -1, 0, 1, 2]),  # -1: black frames in front, as the reference has them
        (1, 3, [-1, -1, 0]),
    ],
)
def test_frames_of_a_file(video: Video, n: int, k: int, expected: list[int]) -> None:
    frames = media.load_video(video(n), k)
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert len(frames) == k == media.count_frames(video(n), k)
    for frame, index in zip(frames, expected, strict=True):
        shade = 0 if index < 0 else 8 * index
        assert np.abs(frame.astype(int) - shade).max() <= 2  # YUV rounds twice


def test_odd_sizes_and_names(video: Video, tmp_path: Path) -> None:
    odd = tmp_path / "a b:c,d'e%03d.mp4"
    odd.write_bytes(video(5, "34x22").read_bytes())
    assert [frame.shape for frame in media.load_video(str(odd), 2)] == [(22, 34, 3)] * 2
    frames = media.load_video(odd, 4)
    assert [round(shade / 8) for shade in shades(frames)] == media.sample_indices(5, 4)


def test_a_moving_gif_is_a_video(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(5)]
    path = tmp_path / "moving.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    assert shades(media.load_video(path, 3)) == [40 * i for i in media.sample_indices(5, 3)]


def test_files_that_hold_no_video(video: Video, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video", encoding="utf-8")
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video(30).read_bytes()[:200])
    sound = tmp_path / "sound.wav"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "sine=d=0.2", str(sound)]
    subprocess.run(command, check=True, timeout=60)
    no_frames = tmp_path / "no_frames.y4m"
    no_frames.write_bytes(b"YUV4MPEG2 W16 H16 F10:1\n")
    for path in (text, empty, cut, sound, no_frames):
        with pytest.raises(InvalidArgument, match=rf"\[video\] .*{path.name}: expected"):
            media.load_video(path, 4)
    with pytest.raises(IoError, match=r"nowhere\.mp4: expected a video file, got no such file"):
        media.load_video("nowhere.mp4", 4)
    with pytest.raises(IoError, match="expected a video file, got a folder"):
        media.load_video(tmp_path, 4)
    with pytest.raises(InvalidArgument, match="num_video_frames: expected at least 1, got 0"):
        media.load_video(video(30), 0)


def test_without_ffmpeg_the_extra_is_named(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(9)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnsupportedError, match=r"expected ffmpeg in PATH or from the extra vila_engine\[video\]"):
        media.load_video(path, 4)
    monkeypatch.setitem(sys.modules, "ffmpeg", None)
    with pytest.raises(UnsupportedError, match=r"expected the extra vila_engine\[video\], got no module ffmpeg"):
        media.load_video(path, 4)


def test_ffmpeg_in_the_path_comes_first(video: Video, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'this is mine' >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    path = video(9)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InvalidArgument, match="expected a video, got: this is mine"):
        media.load_video(path, 4)
