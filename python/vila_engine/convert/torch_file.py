"""Finds the tensors in files of torch.save, as a zip archive or in the format before that, without running them."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from vila_engine._core import CheckpointError, IoError, UnsupportedError
from vila_engine.convert.unpickle import ITEM_SIZES, Machine, Storage, Tensor, describe

MAX_PICKLE_BYTES = 32 << 20

ZIP_MAGIC = b"PK\x03\x04"
ZIP_ENCRYPTED, ZIP_UTF8 = 1, 0x800
ZIP_ERRORS = (NotImplementedError, ValueError, struct.error, EOFError, OverflowError, OSError)
ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
PICKLE_MAGIC = b"\x80"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. Its bounds were checked against the file.

    Attributes:
        file: The file that holds it.
        dtype: A key of ITEM_SIZES.
        shape: Its dimensions.
        strides: Elements between neighbours along each dimension.
        offset: Bytes from the start of the file to its first element.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class TorchFile:
    """The state dictionary in a `.pt` or `.bin` file of torch.save, as a zip archive or in the format before that.

    Only the pickle is read, never the numbers. The pickle holds a dictionary of tensors, or one with such a dictionary
    as "state_dict".

    Attributes:
        path: The file.
        tensors: Name to location, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Reads the directory of a file.

        Args:
            path: The file.

        Raises:
            CheckpointError: the file is damaged, contradicts itself, or holds something else than a state dictionary.
            UnsupportedError: the pickle asks for a function, class or opcode that a state dictionary does not need.
            IoError: the file cannot be read.
        """
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                n_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                head = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
                if head.startswith(ZIP_MAGIC):
                    root = _read_zip(self.path, file, n_bytes)
                elif head.startswith(PICKLE_MAGIC):
                    root = _read_legacy(self.path, file, n_bytes)
                elif head.endswith(TAR_MAGIC):
                    raise UnsupportedError(
                        f"[convert] {path}: expected a zip archive or pickle of torch.save, got a tar archive of 2017; "
                        "load it and save it again with a current torch"
                    )
                else:
                    got = f"{n_bytes} bytes beginning with {head[:4]!r}"
                    raise CheckpointError(f"[convert] {path}: expected a file of torch.save, got {got}")
        except OSError as error:
            raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
        self.tensors = _state_dict(self.path, root)


def _read_zip(path: Path, file: BinaryIO, n_bytes: int) -> object:
    """Reads the pickle of a zip archive; storages are its members data/<key>, which are stored without compression."""

    def fail(expected: str, got: str) -> NoReturn:
        raise CheckpointError(f"[convert] {path}: expected {expected}, got {got}")

    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            n_members = len(archive.infolist())
    except (zipfile.BadZipFile, *ZIP_ERRORS) as error:
        fail("a complete zip archive", str(error))
    if n_members != len(members):
        fail("every member of the archive once", f"{n_members - len(members)} twice")
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        fail("an archive of torch.save with one data.pkl in a folder", f"{len(pickles)} in {n_members} members")
    root = pickles[0].removesuffix("data.pkl")

    def locate(name: str) -> tuple[int, int]:
        """Position and size of a member's bytes in the file."""
        if name not in members:
            fail(f"a member {describe(name)} in the archive", f"{n_members} others")
        info = members[name]
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ZIP_ENCRYPTED
        if not plain or info.compress_size != info.file_size:
            fail(f"member {describe(name)} stored as it is", "a compressed or encrypted one")
        file.seek(info.header_offset)
        header = file.read(ZIP_LOCAL_HEADER.size)
        magic, n_name, n_extra = ZIP_LOCAL_HEADER.unpack(header.ljust(ZIP_LOCAL_HEADER.size, b"\0"))
        encoding = "utf-8" if info.flag_bits & ZIP_UTF8 else "cp437"
        if magic != ZIP_MAGIC or file.read(n_name) != info.orig_filename.encode(encoding):
            fail(f"the header of member {describe(name)} at byte {info.header_offset}", "something else")
        begin = info.header_offset + ZIP_LOCAL_HEADER.size + n_name + n_extra
        end = begin + info.file_size
        if end > n_bytes:
            fail(f"member {describe(name)} within the {n_bytes} bytes of the file", f"its end at {end}")
        return begin, info.file_size

    def read(name: str, limit: int) -> bytes:
        begin, size = locate(name)
        if size > limit:
            fail(f"at most {limit} bytes in {describe(name)}", f"{size}")
        file.seek(begin)
        return file.read(size)

    storages: dict[str, Storage] = {}

    def find_storage(key: str, dtype: str, n_elements: int) -> Storage:
        if key not in storages:
            begin, size = locate(f"{root}data/{key}")
            if size != n_elements * ITEM_SIZES[dtype]:
                fail(f"{n_elements} {dtype} in storage {describe(key)}", f"{size} bytes")
            storages[key] = Storage(dtype, n_elements, begin)
        return storages[key]

    if root + "byteorder" in members and (order := read(root + "byteorder", 16)) != b"little":
        raise UnsupportedError(f"[convert] {path}: expected little-endian numbers, got byteorder {order!r}")
    return Machine(path, find_storage).run(io.BytesIO(read(pickles[0], MAX_PICKLE_BYTES)))


def _read_legacy(path: Path, file: BinaryIO, n_bytes: int) -> object:
    """Reads a file of torch.save before 1.6: five pickles, then the size and the bytes of each storage."""
    storages: dict[str, Storage] = {}

    def find_storage(key: str, dtype: str, n_elements: int) -> Storage:
        return storages.setdefault(key, Storage(dtype, n_elements))

    file.seek(0)
    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    machine = Machine(path, find_storage)
    magic = machine.run(pickles)
    if magic != LEGACY_MAGIC:
        machine.fail("a file of torch.save", f"a pickle of {describe(magic)}")
    protocol, system = machine.run(pickles), machine.run(pickles)
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        machine.refuse(f"protocol {describe(protocol)} or numbers that are not little-endian")
    root, keys = machine.run(pickles), machine.run(pickles)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        machine.fail(f"a list of the keys of {len(storages)} storages", describe(keys))
    position = pickles.tell()
    for key in keys:
        storage = storages[key]
        file.seek(position)
        n_elements = int.from_bytes(file.read(8), "little")
        storage.offset = position + 8
        position = storage.offset + storage.n_elements * ITEM_SIZES[storage.dtype]
        if n_elements != storage.n_elements or position > n_bytes:
            machine.fail(
                f"{storage.n_elements} {storage.dtype} in storage {describe(key)}, up to byte {position}",
                f"{n_elements} elements in a file of {n_bytes} bytes",
            )
    return root


def _state_dict(path: Path, root: object) -> dict[str, StoredTensor]:
    wrapped = root.get("state_dict") if isinstance(root, dict) else None
    entries = wrapped if isinstance(wrapped, dict) else root
    if not isinstance(entries, dict):
        raise CheckpointError(f"[convert] {path}: expected a dictionary of tensors, got {describe(root)}")
    tensors = {}
    for name, tensor in entries.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"[convert] {path}: expected names and tensors, got {describe(name)} with {describe(tensor)}"
            )
        offset = (tensor.storage.offset or 0) + tensor.offset * ITEM_SIZES[tensor.storage.dtype]
        tensors[name] = StoredTensor(path, tensor.storage.dtype, tensor.shape, tensor.strides, offset)
    return tensors
