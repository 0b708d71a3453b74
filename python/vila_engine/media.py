"""Pictures and videos of all kinds to 8-bit RGB arrays; Pillow and ffmpeg decode, nothing here resizes."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import InvalidArgument, IoError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    ImageLike = str | os.PathLike[str] | bytes | PilImage | npt.NDArray[np.uint8]
    VideoLike = str | os.PathLike[str] | Sequence[ImageLike] | npt.NDArray[np.uint8]

Picture = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Largest picture, in pixels: Pillow's own bound against decompression bombs."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""How Pillow reports pictures that are broken inside; each of its formats has a way of its own."""


def load_image(image: ImageLike) -> Picture:
    """Decodes a picture.

    Args:
        image: A path, the bytes of a file, a Pillow image, or a uint8 array [H, W], [H, W, 3] or [H, W, 4]. Alpha is
            dropped and grey is replicated, as Pillow's convert("RGB") does; EXIF orientation is not applied.

    Returns:
        uint8 [H, W, 3].

    Raises:
        IoError: the file cannot be read.
        InvalidArgument: it is no picture, has more than MAX_PIXELS pixels, or the array has another type or shape.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _converted(image, f"a Pillow image of mode {image.mode}")
    if isinstance(image, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(image), f"{len(image)} bytes")
    if isinstance(image, str | os.PathLike):
        return _decode(Path(image), str(image))
    raise InvalidArgument(
        f"[picture] expected a path, bytes, a Pillow image or a uint8 array, got {type(image).__name__}"
    )


def load_images(images: Sequence[ImageLike]) -> list[Picture]:
    """Decodes several pictures; a single picture in place of the list is an InvalidArgument."""
    _check_list("[picture] images: expected a list of pictures", images)
    return [load_image(image) for image in images]


def _check_list(expected: str, items: object) -> None:
    # Text and arrays are sequences too: taken as lists they would give letters and rows.
    if not isinstance(items, Sequence) or isinstance(items, str | bytes | bytearray | memoryview):
        raise InvalidArgument(f"{expected}, got {type(items).__name__}")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidArgument(
            f"[picture] too large: expected at most {MAX_PIXELS:,} pixels, got {width} x {height} = {width * height:,}"
        )


def _from_array(array: npt.NDArray[Any]) -> Picture:
    if array.dtype != np.uint8:
        raise InvalidArgument(f"[picture] expected a uint8 array, got {array.dtype}")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise InvalidArgument(f"[picture] expected [H, W], [H, W, 3] or [H, W, 4], got {list(array.shape)}")
    _check_size(array.shape[1], array.shape[0])
    return np.ascontiguousarray(array[:, :, :3])


def _decode(source: Path | io.BytesIO, name: str) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            return _converted(image, name)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidArgument(f"[picture] {name}: expected at most {MAX_PIXELS:,} pixels, got: {error}") from error
    except FileNotFoundError as error:
        raise IoError(f"[picture] {name}: expected a picture file, got no such file") from error
    except IsADirectoryError as error:
        raise IoError(f"[picture] {name}: expected a picture file, got a folder") from error
    except PermissionError as error:
        raise IoError(f"[picture] {name}: expected a picture file, got no permission to read it") from error
    except UnidentifiedImageError as error:
        raise InvalidArgument(
            f"[picture] {name}: expected a picture that Pillow can read, got something else"
        ) from error
    except BROKEN as error:
        raise InvalidArgument(f"[picture] {name}: expected a whole picture, got {error}") from error


def _converted(image: PilImage, name: str) -> Picture:
    """Decodes what Pillow has opened; alpha is dropped, grey replicated, orientation marks are left alone."""
    _check_size(image.width, image.height)
    if 0 in image.size:
        raise InvalidArgument(f"[picture] {name}: expected at least 1 x 1 pixels, got {image.width} x {image.height}")
    try:
        return np.asarray(image.convert("RGB"))
    except BROKEN as error:
        raise InvalidArgument(f"[picture] {name}: expected a whole picture, got {error}") from error


def sample_indices(n_frames: int, n_samples: int) -> list[int]:
    """Frames to show, as the reference samples them.

    Args:
        n_frames: Frames in the video, more than `n_samples`.
        n_samples: Frames to take.

    Returns:
        trunc(linspace(0, n_frames - 2, n_samples)); the last frame is never taken.
    """
    return [int(i) for i in np.linspace(0, n_frames - 2, n_samples, dtype=int)]


def load_video(video: VideoLike, n_frames: int) -> list[Picture]:
    """Takes frames from a video, oldest first.

    Args:
        video: A path (decoded by ffmpeg, which is looked for in PATH and in imageio-ffmpeg), or a list of pictures.
        n_frames: Frames to take. A longer video or list is sampled as the reference does. From a shorter file all
            frames are taken, with black ones in front, as the reference does; a shorter list is taken as it is. Where
            both numbers are equal, which the reference cannot do, all frames are taken.

    Returns:
        Pictures, uint8 [H, W, 3].

    Raises:
        IoError: the file cannot be read.
        InvalidArgument: it holds no frame, or `n_frames` is below 1.
        UnsupportedError: ffmpeg is not installed.
    """
    if n_frames < 1:
        raise InvalidArgument(f"[video] num_video_frames: expected at least 1, got {n_frames}")
    if isinstance(video, str | os.PathLike):
        return _decode_video(Path(video), n_frames)
    frames = list(video) if isinstance(video, np.ndarray) and video.ndim == 4 else video
    _check_list("[video] expected a path or a list of frames", frames)
    if len(frames) == 0:
        raise InvalidArgument("[video] expected at least 1 frame, got an empty list")
    chosen = sample_indices(len(frames), n_frames) if len(frames) > n_frames else range(len(frames))
    return [load_image(frames[i]) for i in chosen]


def load_videos(videos: Sequence[VideoLike], n_frames: int) -> list[list[Picture]]:
    """Takes frames from several videos; a single video in place of the list is an InvalidArgument."""
    _check_list("[video] videos: expected a list of videos", videos)
    return [load_video(video, n_frames) for video in videos]


def count_frames(video: VideoLike | int, n_frames: int) -> int:
    """How many frames `load_video` returns, without reading any; a number stands for itself."""
    if isinstance(video, int):
        return video
    return n_frames if isinstance(video, str | os.PathLike) else min(len(video), n_frames)


def _ffmpeg_binary() -> str:
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise UnsupportedError(
            "[video] expected ffmpeg in PATH or from the extra vila_engine[video], got neither"
        ) from None


def _run_ffmpeg(path: Path, select: str, **output: str) -> tuple[bytes, str]:
    """Runs the frames that the filter `select` leaves through ffmpeg; returns what it writes and its log."""
    try:
        import ffmpeg
    except ImportError:
        raise UnsupportedError("[video] expected the extra vila_engine[video], got no module ffmpeg") from None
    # Frames are numbered anew at one rate from end to end, so that ffmpeg neither doubles nor drops any; the options
    # that say so directly have other names from version to version.
    source = ffmpeg.input(f"file:{path}", protocol_whitelist="file,crypto,data", r=25)
    stream = source.output("pipe:", map="0:v:0", vf=f"{select}settb=1/25,setpts=N", r=25, **output)
    stream = stream.global_args("-hide_banner", "-nostdin")
    try:
        out, log = stream.run(cmd=_ffmpeg_binary(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidArgument(
            f"[video] {path}: expected a video, got: {lines[-1] if lines else 'no message'}"
        ) from error
    return out, log.decode("utf-8", "replace")


def _decode_video(path: Path, n_frames: int) -> list[Picture]:
    if not path.is_file():
        raise IoError(f"[video] {path}: expected a video file, got {'a folder' if path.is_dir() else 'no such file'}")
    _, log = _run_ffmpeg(path, "", format="null")
    counts = re.findall(r"frame=\s*(\d+)", log)
    total = int(counts[-1]) if counts else 0
    if total == 0:
        raise InvalidArgument(f"[video] {path}: expected at least 1 frame, got 0")
    chosen = sample_indices(total, n_frames) if total > n_frames else list(range(total))
    wanted = "+".join(f"eq(n,{i})" for i in sorted(set(chosen)))
    data, _ = _run_ffmpeg(path, f"select='{wanted}',", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    by_index = dict(zip(sorted(set(chosen)), _split_ppm(data), strict=False))
    frames = [by_index[i] for i in chosen if i in by_index]
    if not frames:
        raise InvalidArgument(f"[video] {path}: expected {len(chosen)} decodable frames, got none")
    return [np.zeros_like(frames[0])] * (n_frames - len(frames)) + frames


def _split_ppm(data: bytes) -> list[Picture]:
    """Cuts a run of binary PPM pictures (the netpbm P6 format, 8 bits) apart."""
    frames = []
    header = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")
    at = 0
    while match := header.match(data, at):
        width, height = int(match[1]), int(match[2])
        size = width * height * 3
        if match.end() + size > len(data):
            break
        pixels = np.frombuffer(data, np.uint8, size, match.end()).reshape(height, width, 3)
        frames.append(pixels)
        at = match.end() + size
    return frames
