"""Finds the tensors in files of torch.save without running them: an interpreter of pickle opcodes that imports nothing.

A pickle is a program that may call any function of Python. Here the opcodes only move data about; the few functions
that state dictionaries need are carried out by name, everything else is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from vila_engine._core import CheckpointError, IoError, UnsupportedError

MAX_PICKLE_BYTES = 32 << 20
MAX_OPCODES = 2_000_000
MAX_MEMO = 500_000
MAX_MARKS = 100
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 48

ITEM_SIZES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "bool": 1},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1},
}
STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"
SIZE = "torch.Size"
ALLOWED_GLOBALS = frozenset({REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT, SIZE, *STORAGES})

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
                    raise CheckpointError(
                        f"[convert] {path}: expected a file of torch.save, got {n_bytes} bytes beginning with {head[:4]!r}"
                    )
        except OSError as error:
            raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
        self.tensors = _state_dict(self.path, root)


@dataclass(frozen=True)
class _Global:
    """A name of the allow-list. It stands for itself: nothing is imported."""

    name: str


@dataclass
class _Storage:
    """A flat array of numbers in the file."""

    dtype: str
    n_elements: int
    offset: int | None = None  # bytes from the start of the file; in old files known after the pickle


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _describe(value: object) -> str:
    """A short description of any value: values come from the file and may be huge, nested or endless."""
    if isinstance(value, _Global):
        return value.name
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:80] + "...")
    if isinstance(value, tuple | list | dict | bytes):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__.lstrip('_').lower()}"


def _count(value: object) -> int | None:
    """The value as a number of elements, if it can be one."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS:
        return value
    return None


def _counts(value: object) -> tuple[int, ...] | None:
    """The value as numbers of elements, one per dimension, if it can be that."""
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
        return None
    counts = tuple(count for item in value if (count := _count(item)) is not None)
    return counts if len(counts) == len(value) else None


@dataclass
class _Machine:
    """The state of one or several pickles of one file; `find_storage` locates a storage by key, type and size."""

    path: Path
    find_storage: Callable[[str, str, int], _Storage]
    stack: list[object] = field(default_factory=list)
    outer: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    steps: int = 0

    def run(self, stream: BinaryIO) -> object:
        """Interprets one pickle up to its STOP and returns what it leaves. Values are never walked recursively."""
        self.stack, self.outer, self.memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self.charge(1)
                if opcode.name == "STOP":
                    break
                self.step(opcode.name, argument)
        except (ValueError, struct.error, OverflowError) as error:
            self.fail("a pickle", str(error)[:200])
        if len(self.stack) != 1 or self.outer:
            self.fail("a pickle that leaves one object", f"{len(self.stack)} and {len(self.outer)} open marks")
        return self.stack[0]

    def fail(self, expected: str, got: str) -> NoReturn:
        raise CheckpointError(f"[convert] {self.path}: expected {expected}, got {got}")

    def refuse(self, got: str) -> NoReturn:
        raise UnsupportedError(f"[convert] {self.path}: expected a pickle of plain tensors, got {got}; nothing was run")

    def charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_OPCODES:
            self.fail(f"at most {MAX_OPCODES} steps of a pickle", "more")

    def pop(self) -> object:
        if not self.stack:
            self.fail("a value on the pickle's stack", "an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self.outer:
            self.fail("a mark on the pickle's stack", "none")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def step(self, name: str, argument: object) -> None:
        """Carries out one opcode."""
        push = self.stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT":
                push(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                push(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                push(argument)
            case "MARK":
                if len(self.outer) >= MAX_MARKS:
                    self.fail(f"at most {MAX_MARKS} nested marks in a pickle", "more")
                self.outer.append(self.stack)
                self.stack = []
            case "POP":
                if self.stack:
                    self.pop()
                else:
                    self.pop_to_mark()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                value = self.pop()
                self.stack += [value, value]
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memoize(len(self.memo) if name == "MEMOIZE" else argument)
            case "GET" | "BINGET" | "LONG_BINGET":
                if not isinstance(argument, int) or argument not in self.memo:
                    self.fail("a place of the pickle's memo that was written", _describe(argument))
                push(self.memo[argument])
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
            case "TUPLE" | "LIST":
                items = self.pop_to_mark()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "EMPTY_LIST":
                push([])
            case "APPEND" | "APPENDS":
                items = [self.pop()] if name == "APPEND" else self.pop_to_mark()
                target = self.top()
                if not isinstance(target, list):
                    self.fail("a list to append to", _describe(target))
                target.extend(items)
            case "EMPTY_DICT":
                push({})
            case "DICT":
                items = self.pop_to_mark()
                self.stack.append({})
                self.set_items(items)
            case "SETITEM":
                value = self.pop()
                self.set_items([self.pop(), value])
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "GLOBAL":
                push(self.find_global(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                push(self.find_global(module, attribute))
            case "BINPERSID":
                push(self.persistent(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                push(self.reduce(function, arguments))
            case "BUILD":
                self.pop()  # the attributes of an OrderedDict: the module versions of a state dictionary
                if not isinstance(self.top(), dict):
                    self.refuse(f"opcode BUILD on {_describe(self.top())}")
            case "INST":
                self.refuse(f"opcode INST of {'.'.join(str(argument).split(' ', 1))[:200]!r}")
            case _:
                self.refuse(f"opcode {name}")

    def top(self) -> object:
        if not self.stack:
            self.fail("a value on the pickle's stack", "an empty stack")
        return self.stack[-1]

    def memoize(self, place: object) -> None:
        if not isinstance(place, int) or place < 0:
            self.fail("a place in the pickle's memo", _describe(place))
        self.memo[place] = self.top()
        if len(self.memo) > MAX_MEMO:
            self.fail(f"at most {MAX_MEMO} places in the pickle's memo", "more")

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            self.fail("pairs to put into a dictionary", f"{len(items)} values and {_describe(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.set_item(target, key, value)

    def set_item(self, target: dict[object, object], key: object, value: object) -> None:
        if not isinstance(key, str | int):
            self.fail("a string or an integer as the key of a dictionary", _describe(key))
        if key in target:
            self.fail("every key of a dictionary once", f"{_describe(key)} twice")
        target[key] = value

    def find_global(self, module: object, attribute: object = None) -> _Global:
        if not isinstance(module, str) or not isinstance(attribute, str):
            self.fail("the name of a global", f"{_describe(module)} and {_describe(attribute)}")
        name = f"{module}.{attribute}"
        if name not in ALLOWED_GLOBALS:
            self.refuse(f"the global {_describe(name)}")
        return _Global(name)

    def persistent(self, identifier: object) -> _Storage:
        """Resolves ("storage", type, key, location, number of elements), in old files with a sixth value of None."""
        if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
            self.fail('a persistent id ("storage", type, key, location, size)', _describe(identifier))
        _, kind, key, _, size = identifier[:5]
        n_elements = _count(size)
        if not isinstance(kind, _Global) or kind.name not in STORAGES or not isinstance(key, str) or n_elements is None:
            got = ", ".join(map(_describe, (kind, key, size)))
            self.fail("a storage's type, key and number of elements", got)
        if len(identifier) == 6 and identifier[5] is not None:
            self.refuse("a view of another storage")
        storage = self.find_storage(key, STORAGES[kind.name], n_elements)
        if (storage.dtype, storage.n_elements) != (STORAGES[kind.name], n_elements):
            self.fail(
                f"storage {_describe(key)} as {storage.n_elements} {storage.dtype} like before",
                f"{n_elements} {STORAGES[kind.name]}",
            )
        return storage

    def reduce(self, function: object, arguments: object) -> object:
        """Carries out one of the allowed calls."""
        if not isinstance(function, _Global):
            self.refuse(f"a call of {_describe(function)}")
        if not isinstance(arguments, tuple):
            self.fail(f"a tuple of arguments of {function.name}", _describe(arguments))
        if function.name == REBUILD_TENSOR and len(arguments) in (6, 7):
            return self.tensor(*arguments[:4])
        if function.name == REBUILD_PARAMETER and len(arguments) == 3 and isinstance(arguments[0], _Tensor):
            return arguments[0]
        if function.name == SIZE and len(arguments) == 1 and _counts(arguments[0]) is not None:
            return arguments[0]
        if function.name == ORDERED_DICT and len(arguments) <= 1:
            return self.ordered_dict(arguments[0] if arguments else [])
        return self.fail(f"arguments that fit {function.name}", ", ".join(map(_describe, arguments[:8])))

    def ordered_dict(self, pairs: object) -> dict[object, object]:
        if not isinstance(pairs, list | tuple):
            self.fail("pairs for an OrderedDict", _describe(pairs))
        self.charge(len(pairs))
        result: dict[object, object] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                self.fail("pairs for an OrderedDict", _describe(pair))
            self.set_item(result, *pair)
        return result

    def tensor(self, storage: object, offset: object, shape: object, strides: object) -> _Tensor:
        begin, sizes, steps = _count(offset), _counts(shape), _counts(strides)
        known = isinstance(storage, _Storage) and begin is not None and sizes is not None and steps is not None
        if not known or len(sizes) != len(steps):
            got = ", ".join(map(_describe, (storage, offset, shape, strides)))
            self.fail("a tensor's storage, offset, shape and strides", got)
        n_elements = math.prod(sizes)
        last = begin + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if n_elements and (last >= storage.n_elements or n_elements > storage.n_elements):
            self.fail(
                f"a tensor within its storage of {storage.n_elements} elements",
                f"offset {begin}, shape {sizes}, strides {steps}",
            )
        return _Tensor(storage, begin, sizes, steps)


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
            fail(f"a member {_describe(name)} in the archive", f"{n_members} others")
        info = members[name]
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ZIP_ENCRYPTED
        if not plain or info.compress_size != info.file_size:
            fail(f"member {_describe(name)} stored as it is", "a compressed or encrypted one")
        file.seek(info.header_offset)
        header = file.read(ZIP_LOCAL_HEADER.size)
        magic, n_name, n_extra = ZIP_LOCAL_HEADER.unpack(header.ljust(ZIP_LOCAL_HEADER.size, b"\0"))
        encoding = "utf-8" if info.flag_bits & ZIP_UTF8 else "cp437"
        if magic != ZIP_MAGIC or file.read(n_name) != info.orig_filename.encode(encoding):
            fail(f"the header of member {_describe(name)} at byte {info.header_offset}", "something else")
        begin = info.header_offset + ZIP_LOCAL_HEADER.size + n_name + n_extra
        end = begin + info.file_size
        if end > n_bytes:
            fail(f"member {_describe(name)} within the {n_bytes} bytes of the file", f"its end at {end}")
        return begin, info.file_size

    def read(name: str, limit: int) -> bytes:
        begin, size = locate(name)
        if size > limit:
            fail(f"at most {limit} bytes in {_describe(name)}", f"{size}")
        file.seek(begin)
        return file.read(size)

    storages: dict[str, _Storage] = {}

    def find_storage(key: str, dtype: str, n_elements: int) -> _Storage:
        if key not in storages:
            begin, size = locate(f"{root}data/{key}")
            if size != n_elements * ITEM_SIZES[dtype]:
                fail(f"{n_elements} {dtype} in storage {_describe(key)}", f"{size} bytes")
            storages[key] = _Storage(dtype, n_elements, begin)
        return storages[key]

    if root + "byteorder" in members and (order := read(root + "byteorder", 16)) != b"little":
        raise UnsupportedError(f"[convert] {path}: expected little-endian numbers, got byteorder {order!r}")
    return _Machine(path, find_storage).run(io.BytesIO(read(pickles[0], MAX_PICKLE_BYTES)))


def _read_legacy(path: Path, file: BinaryIO, n_bytes: int) -> object:
    """Reads a file of torch.save before 1.6: five pickles, then the size and the bytes of each storage."""
    storages: dict[str, _Storage] = {}

    def find_storage(key: str, dtype: str, n_elements: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, n_elements))

    file.seek(0)
    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    machine = _Machine(path, find_storage)
    magic = machine.run(pickles)
    if magic != LEGACY_MAGIC:
        machine.fail("a file of torch.save", f"a pickle of {_describe(magic)}")
    protocol, system = machine.run(pickles), machine.run(pickles)
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        machine.refuse(f"protocol {_describe(protocol)} or numbers that are not little-endian")
    root, keys = machine.run(pickles), machine.run(pickles)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        machine.fail(f"a list of the keys of {len(storages)} storages", _describe(keys))
    position = pickles.tell()
    for key in keys:
        storage = storages[key]
        file.seek(position)
        n_elements = int.from_bytes(file.read(8), "little")
        storage.offset = position + 8
        position = storage.offset + storage.n_elements * ITEM_SIZES[storage.dtype]
        if n_elements != storage.n_elements or position > n_bytes:
            machine.fail(
                f"{storage.n_elements} {storage.dtype} in storage {_describe(key)}, up to byte {position}",
                f"{n_elements} elements in a file of {n_bytes} bytes",
            )
    return root


def _state_dict(path: Path, root: object) -> dict[str, StoredTensor]:
    wrapped = root.get("state_dict") if isinstance(root, dict) else None
    entries = wrapped if isinstance(wrapped, dict) else root
    if not isinstance(entries, dict):
        raise CheckpointError(f"[convert] {path}: expected a dictionary of tensors, got {_describe(root)}")
    tensors = {}
    for name, tensor in entries.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise CheckpointError(
                f"[convert] {path}: expected names and tensors, got {_describe(name)} with {_describe(tensor)}"
            )
        offset = (tensor.storage.offset or 0) + tensor.offset * ITEM_SIZES[tensor.storage.dtype]
        tensors[name] = StoredTensor(path, tensor.storage.dtype, tensor.shape, tensor.strides, offset)
    return tensors
