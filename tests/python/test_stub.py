"""The hand-written stub says what the compiled module has: names, kinds, and the arguments of every function."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vila_engine import _core

ROOT = Path(__file__).resolve().parents[2]
STUB = (ROOT / "python" / "vila_engine" / "_core.pyi").read_text(encoding="utf-8")
ALLOWED = ROOT / "tests" / "python" / "stubtest_allowlist.txt"

Function = ast.FunctionDef


def test_stubtest_finds_no_difference() -> None:
    command = [sys.executable, "-m", "mypy.stubtest", "vila_engine._core", "--allowlist", str(ALLOWED)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def stub_functions(text: str) -> dict[str, Function]:
    """Functions and methods of a stub by dotted name; properties have no arguments to compare."""
    found = {}
    for node in ast.parse(text).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, Function) and not any(ast.unparse(d) == "property" for d in member.decorator_list):
                found[prefix + member.name] = member
    return found


def compiled_functions() -> dict[str, Function]:
    """The same of the module: pybind11 writes each signature, in Python's syntax, into the docstring."""
    found = {}
    owners: list[tuple[str, Any]] = [("", _core)]
    owners += [(f"{name}.", item) for name, item in vars(_core).items() if type(item).__name__ == "pybind11_type"]
    for prefix, owner in owners:
        for name in vars(owner):
            doc = getattr(getattr(owner, name), "__doc__", None) or ""
            match = re.match(rf"{re.escape(name)}(\(.*\)) -> .*", doc)
            if match:
                function = ast.parse(f"def f{match[1]}: ...").body[0]
                assert isinstance(function, Function)
                found[prefix + name] = function
    return found


def arguments(function: Function) -> list[tuple[str, bool, str]]:
    """(name, keyword only, default) of every argument but self."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    listed = [(a.arg, False, d) for a, d in zip(positional, defaults, strict=True)]
    listed += [(a.arg, True, d) for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    return [(name, only, repr(d and ast.literal_eval(d))) for name, only, d in listed if name not in {"self", "arg0"}]


def differences(text: str) -> list[str]:
    ours, theirs = stub_functions(text), compiled_functions()
    silent = {name for name in ours if name.endswith(".__init__") and name not in theirs}  # without a constructor
    missing = [f"{name}: only on one side" for name in (set(ours) - silent) ^ set(theirs)]
    changed = [
        f"{name}: {arguments(ours[name])} is {arguments(theirs[name])}"
        for name in set(ours) & set(theirs)
        if arguments(ours[name]) != arguments(theirs[name])
    ]
    return sorted(missing + changed)


def test_every_function_takes_what_the_stub_says() -> None:
    assert differences(STUB) == []
    assert len(compiled_functions()) >= 30


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("top_k: int = 0", "top_n: int = 0"),
        ("top_k: int = 0", "top_k: int = 1"),
        ("def push(self, id: int)", "def push(self, token: int)"),
        ("add_special: bool = True", "add_special: bool"),
        ("def default_threads", "def threads"),
        ("text: str | bytes, *,", "text: str | bytes,"),
    ],
)
def test_a_wrong_stub_is_noticed(old: str, new: str) -> None:
    assert STUB.count(old) == 1
    assert len(differences(STUB.replace(old, new))) in {1, 2}


def test_the_stub_is_documented() -> None:
    """Every class and every function that is not one of Python's own."""
    bare = [
        name
        for name, function in stub_functions(STUB).items()
        if not ast.get_docstring(function) and name.rpartition(".")[2] not in {"__init__", "__iter__", "__next__"}
    ]
    assert bare == ["Session.start", "Engine.load", "Engine.new_session"]  # engine.py says it all
