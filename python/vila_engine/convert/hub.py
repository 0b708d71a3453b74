"""Finds the folder of a published checkpoint: on the disk, or on the Hugging Face Hub if the caller names it so."""

from __future__ import annotations

import re
from pathlib import Path

from vila_engine._core import IoError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_source(source: str | Path) -> Path:
    """The folder of a checkpoint; only the id of a repository makes a download.

    Args:
        source: A folder, or the id "org/name" of a repository on the Hub.

    Raises:
        IoError: there is no such folder, it cannot be downloaded, or huggingface_hub is not installed.
    """
    path = Path(source)
    if path.is_dir():
        return path
    text = str(source)
    if path.exists() or not HUB_ID.fullmatch(text):
        found = "a file" if path.exists() else "nothing there"
        raise IoError(f"[convert] {source}: expected a checkpoint folder or a Hub id such as org/name, got {found}")
    try:
        import huggingface_hub
    except ImportError:
        raise IoError(
            f"[convert] {source}: expected a folder, got a name that looks like a Hub id; "
            "install vila_engine[convert] to download it"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(text))
    except Exception as error:  # the Hub's errors share no base class
        raise IoError(f"[convert] {source}: expected a folder or a repository of the Hub, got {error}") from error


def published_name(folder: Path) -> str:
    """The name under which a checkpoint was published: its folder's, or in the Hub's cache its repository's."""
    folder = folder.resolve()
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.rsplit("--", 1)[-1]
    return folder.name
