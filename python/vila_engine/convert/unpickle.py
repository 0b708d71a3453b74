"""An interpreter of pickle opcodes that imports nothing and calls nothing: it only finds out where tensors lie.

A pickle is a program that may call any function of Python. Here the opcodes only move data about; the few functions
that state dictionaries need are carried out by name, everything else is refused.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from vila_engine._core import CheckpointError, UnsupportedError

MAX_OPCODES = 1_000_000  # the largest published file takes a fifth
MAX_MEMO = 250_000
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

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
# Opcodes that push their argument, a number or text.
PUSHING = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    ]
)


@dataclass(frozen=True)
class _Global:
    """A name of the allow-list. It stands for itself: nothing is imported."""

    name: str


@dataclass
class Storage:
    """A flat array of numbers in the file."""

    dtype: str
    n_elements: int
    offset: int | None = None  # bytes from the start of the file; in old files known after the pickle


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def describe(value: object) -> str:
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
class Machine:
    """The state of one or several pickles of one file; `find_storage` locates a storage by key, type and size."""

    path: Path
    find_storage: Callable[[str, str, int], Storage]
    stack: list[object] = field(default_factory=list)
    outer: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    steps: int = 0

    def run(self, stream: BinaryIO) -> object:
        """Interprets one pickle up to its STOP and returns what it leaves. Values are never walked recursively."""
        self.stack, self.outer, self.memo = [], [], {}
        try:
            while (opcode := self._read_opcode(stream)).name != "STOP":
                self._charge(1)
                self._step(opcode.name, opcode.arg.reader(stream) if opcode.arg else None)
        except (ValueError, struct.error, OverflowError) as error:
            self.fail("a pickle", str(error)[:200])
        if len(self.stack) != 1 or self.outer:
            self.fail("a pickle that leaves one object", f"{len(self.stack)} and {len(self.outer)} open marks")
        return self.stack[0]

    def _read_opcode(self, stream: BinaryIO) -> pickletools.OpcodeInfo:
        code = stream.read(1)
        if code not in OPCODES:
            self.fail("an opcode of a pickle", repr(code) if code else "the end of the file")
        # Protocol 0 alone has strings in quotes; to decode them may print a warning.
        if OPCODES[code].name == "STRING":
            self.refuse("opcode STRING")
        return OPCODES[code]

    def fail(self, expected: str, got: str) -> NoReturn:
        """Reports a damaged pickle."""
        raise CheckpointError(f"[convert] {self.path}: expected {expected}, got {got}")

    def refuse(self, got: str) -> NoReturn:
        """Reports a pickle that asks for more than tensors."""
        raise UnsupportedError(f"[convert] {self.path}: expected a pickle of plain tensors, got {got}; nothing was run")

    def _charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_OPCODES:
            self.fail(f"at most {MAX_OPCODES} steps of a pickle", "more")

    def _pop(self) -> object:
        if not self.stack:
            self.fail("a value on the pickle's stack", "an empty stack")
        return self.stack.pop()

    def _pop_to_mark(self) -> list[object]:
        if not self.outer:
            self.fail("a mark on the pickle's stack", "none")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def _step(self, name: str, argument: object) -> None:
        """Carries out one opcode."""
        if name in PUSHING:
            self.stack.append(argument)
        elif not (self._step_stack(name, argument) or self._step_container(name) or self._step_call(name, argument)):
            self.refuse(f"opcode {name}")

    def _step_stack(self, name: str, argument: object) -> bool:
        """Opcodes that move values between the stack, the marks below it and the memo; whether it was one."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(name == "NEWTRUE")
            case "MARK":
                if len(self.outer) >= MAX_MARKS:
                    self.fail(f"at most {MAX_MARKS} nested marks in a pickle", "more")
                self.outer.append(self.stack)
                self.stack = []
            case "POP":
                if self.stack:
                    self._pop()
                else:
                    self._pop_to_mark()
            case "POP_MARK":
                self._pop_to_mark()
            case "DUP":
                self.stack.append(self._top())
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memoize(len(self.memo) if name == "MEMOIZE" else argument)
            case "GET" | "BINGET" | "LONG_BINGET":
                if not isinstance(argument, int) or argument not in self.memo:
                    self.fail("a place of the pickle's memo that was written", describe(argument))
                self.stack.append(self.memo[argument])
            case _:
                return False
        return True

    def _step_container(self, name: str) -> bool:
        """Opcodes of tuples, lists and dictionaries; whether it was one."""
        match name:
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(reversed([self._pop() for _ in range(int(name[-1]))])))
            case "TUPLE" | "LIST":
                items = self._pop_to_mark()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "EMPTY_LIST":
                self.stack.append([])
            case "APPEND" | "APPENDS":
                items = [self._pop()] if name == "APPEND" else self._pop_to_mark()
                target = self._top()
                if not isinstance(target, list):
                    self.fail("a list to append to", describe(target))
                target.extend(items)
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                items = self._pop_to_mark()
                self.stack.append({})
                self._set_items(items)
            case "SETITEM":
                value = self._pop()
                self._set_items([self._pop(), value])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case _:
                return False
        return True

    def _step_call(self, name: str, argument: object) -> bool:
        """Opcodes with which a pickle runs code, as far as state dictionaries need them; whether it was one."""
        match name:
            case "GLOBAL":
                self.stack.append(self._find_global(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                self.stack.append(self._find_global(module, attribute))
            case "BINPERSID":
                self.stack.append(self._persistent(self._pop()))
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                self.stack.append(self._reduce(function, arguments))
            case "BUILD":
                self._pop()  # the attributes of an OrderedDict: the module versions of a state dictionary
                if not isinstance(self._top(), dict):
                    self.refuse(f"opcode BUILD on {describe(self._top())}")
            case "INST":
                self.refuse(f"opcode INST of {'.'.join(str(argument).split(' ', 1))[:200]!r}")
            case _:
                return False
        return True

    def _top(self) -> object:
        if not self.stack:
            self.fail("a value on the pickle's stack", "an empty stack")
        return self.stack[-1]

    def _memoize(self, place: object) -> None:
        if not isinstance(place, int) or place < 0:
            self.fail("a place in the pickle's memo", describe(place))
        self.memo[place] = self._top()
        if len(self.memo) > MAX_MEMO:
            self.fail(f"at most {MAX_MEMO} places in the pickle's memo", "more")

    def _set_items(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            self.fail("pairs to put into a dictionary", f"{len(items)} values and {describe(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set_item(target, key, value)

    def _set_item(self, target: dict[object, object], key: object, value: object) -> None:
        if not isinstance(key, str | int):
            self.fail("a string or an integer as the key of a dictionary", describe(key))
        if key in target:
            self.fail("every key of a dictionary once", f"{describe(key)} twice")
        target[key] = value

    def _find_global(self, module: object, attribute: object = None) -> _Global:
        if not isinstance(module, str) or not isinstance(attribute, str):
            self.fail("the name of a global", f"{describe(module)} and {describe(attribute)}")
        name = f"{module}.{attribute}"
        if name not in ALLOWED_GLOBALS:
            self.refuse(f"the global {describe(name)}")
        return _Global(name)

    def _persistent(self, identifier: object) -> Storage:
        """Resolves ("storage", type, key, location, number of elements), in old files with a sixth value of None."""
        if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
            self.fail('a persistent id ("storage", type, key, location, size)', describe(identifier))
        _, kind, key, _, size = identifier[:5]
        n_elements = _count(size)
        if not isinstance(kind, _Global) or kind.name not in STORAGES or not isinstance(key, str) or n_elements is None:
            got = ", ".join(map(describe, (kind, key, size)))
            self.fail("a storage's type, key and number of elements", got)
        if len(identifier) == 6 and identifier[5] is not None:
            self.refuse("a view of another storage")
        storage = self.find_storage(key, STORAGES[kind.name], n_elements)
        if (storage.dtype, storage.n_elements) != (STORAGES[kind.name], n_elements):
            self.fail(
                f"storage {describe(key)} as {storage.n_elements} {storage.dtype} like before",
                f"{n_elements} {STORAGES[kind.name]}",
            )
        return storage

    def _reduce(self, function: object, arguments: object) -> object:
        """Carries out one of the allowed calls."""
        if not isinstance(function, _Global):
            self.refuse(f"a call of {describe(function)}")
        if not isinstance(arguments, tuple):
            self.fail(f"a tuple of arguments of {function.name}", describe(arguments))
        if function.name == REBUILD_TENSOR and len(arguments) in (6, 7):
            return self._tensor(*arguments[:4])
        if function.name == REBUILD_PARAMETER and len(arguments) == 3 and isinstance(arguments[0], Tensor):
            return arguments[0]
        if function.name == SIZE and len(arguments) == 1 and _counts(arguments[0]) is not None:
            return arguments[0]
        if function.name == ORDERED_DICT and len(arguments) <= 1:
            return self._ordered_dict(arguments[0] if arguments else [])
        return self.fail(f"arguments that fit {function.name}", ", ".join(map(describe, arguments[:8])))

    def _ordered_dict(self, pairs: object) -> dict[object, object]:
        if not isinstance(pairs, list | tuple):
            self.fail("pairs for an OrderedDict", describe(pairs))
        self._charge(len(pairs))
        result: dict[object, object] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                self.fail("pairs for an OrderedDict", describe(pair))
            self._set_item(result, *pair)
        return result

    def _tensor(self, storage: object, offset: object, shape: object, strides: object) -> Tensor:
        begin, sizes, steps = _count(offset), _counts(shape), _counts(strides)
        if (
            not isinstance(storage, Storage)
            or begin is None
            or sizes is None
            or steps is None
            or len(sizes) != len(steps)
        ):
            got = ", ".join(map(describe, (storage, offset, shape, strides)))
            self.fail("a tensor's storage, offset, shape and strides", got)
        n_elements = math.prod(sizes)
        last = begin + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if n_elements and (last >= storage.n_elements or n_elements > storage.n_elements):
            self.fail(
                f"a tensor within its storage of {storage.n_elements} elements",
                f"offset {begin}, shape {sizes}, strides {steps}",
            )
        return Tensor(storage, begin, sizes, steps)
