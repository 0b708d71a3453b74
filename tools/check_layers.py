#!/usr/bin/env python3
"""Checks the dependency direction of the rooms, in C++ and in Python, and a few habits of the house.

The tables below are the only statement of who may use whom; docs/ARCHITECTURE.md draws them. Prints one line
"file:line: what is forbidden, what is allowed" per finding and exits with 1 if there are any.

    python tools/check_layers.py [ROOT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

# Room of cpp/src -> the other rooms whose headers it may include. Lower layers first; an arrow never points up.
ROOMS: dict[str, frozenset[str]] = {
    "base": frozenset(),
    "layout": frozenset({"base"}),
    "kernels": frozenset({"base", "layout"}),
    "tensor": frozenset({"base", "layout"}),
    "threading": frozenset({"base"}),
    "text": frozenset({"base"}),
    "image": frozenset({"base"}),
    "io": frozenset({"base", "layout", "tensor", "threading"}),
    "ops": frozenset({"base", "layout", "kernels", "tensor", "threading"}),
    "layers": frozenset({"base", "layout", "tensor", "threading", "io", "ops"}),
    "models": frozenset({"base", "layout", "tensor", "threading", "image", "io", "ops", "layers"}),
    "engine": frozenset(
        {"base", "layout", "kernels", "tensor", "threading", "text", "image", "io", "ops", "layers", "models"}
    ),
}

# Public headers are the engine's door: below it only these pass, and every room may throw the errors.
PUBLIC_HEADERS: dict[str, frozenset[str]] = {
    "error.h": frozenset(ROOMS),
    "image.h": frozenset({"image", "models", "engine"}),
}
FULL_DOOR = frozenset({"engine"})

# Doors to other languages see include/vila; the exceptions are named file by file.
DOOR_EXCEPTIONS: dict[str, frozenset[str]] = {
    "cpp/bindings/quantize.cpp": frozenset({"base", "layout"}),
    "cpp/bindings/image.cpp": frozenset({"image"}),
    "cpp/bindings/tokenizer.cpp": frozenset({"text"}),
    "cpp/bindings/engine.cpp": frozenset({"text"}),
}


@dataclass(frozen=True)
class Reserved:
    """Headers that only some files may include."""

    what: str
    headers: re.Pattern[str]
    homes: tuple[str, ...]


RESERVED = (
    Reserved(
        "libpng and libjpeg", re.compile(r"(png|pngconf|jpeglib|jerror|turbojpeg)\.h"), ("cpp/src/image/decode.cpp",)
    ),
    Reserved("nlohmann-json", re.compile(r"nlohmann/.*"), ("cpp/src/io/json.*",)),
    Reserved("pybind11", re.compile(r"(pybind11/.*|Python\.h)"), ("cpp/bindings/*",)),
    Reserved(
        "intrinsics", re.compile(r"([a-z0-9]*mmintrin|immintrin|arm_(neon|acle|sve))\.h"), ("cpp/src/kernels/simd/*",)
    ),
    Reserved("CUDA", re.compile(r"(cuda|cublas)[a-z_0-9]*(\.h|/.*)"), ("cpp/src/ops/cuda/*",)),
)

# The library is a guest in its host's process.
FORBIDDEN_CALLS = re.compile(
    r"(?<![\w.:>])(?:std::|::)?(printf|fprintf|vprintf|puts|fputs|putchar|perror|abort|exit|_exit|quick_exit|terminate)\s*\("
    r"|\bstd::(cout|cerr|clog)\b"
)

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
CXX_SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".in"}

# Module or package of python/vila_engine -> what it may import of its own package. "_core" is the C++ engine.
PYTHON_ROOMS: dict[str, frozenset[str]] = {
    "_core": frozenset(),
    "__init__": frozenset({"_core", "engine", "query", "results"}),
    "__main__": frozenset({"cli"}),
    "media": frozenset({"_core"}),
    "query": frozenset({"_core"}),
    "results": frozenset(),
    "engine": frozenset({"_core", "media", "query", "results"}),
    "convert": frozenset({"_core"}),
    "parity": frozenset({"_core", "engine", "media", "query", "convert"}),
    "evaluate": frozenset({"_core", "engine", "media"}),
    "train": frozenset({"_core", "engine", "media", "convert", "evaluate"}),
    "bench": frozenset({"_core", "engine", "media", "query", "results", "convert"}),
    "demo": frozenset({"_core", "engine", "media", "results", "convert", "parity", "evaluate"}),
    "server": frozenset({"_core", "engine", "media"}),
    "cli": frozenset({"_core", "engine", "media", "convert", "parity", "bench", "evaluate", "train", "demo", "server"}),
}

# Importing vila_engine loads numpy only: these are imported inside the function that needs them, or in their home.
HEAVY_IMPORTS: dict[str, frozenset[str]] = {
    "torch": frozenset({"train"}),
    "transformers": frozenset(),
    "PIL": frozenset({"train"}),
    "safetensors": frozenset({"convert", "train"}),
    "sentencepiece": frozenset({"train"}),
    "huggingface_hub": frozenset(),
    "ffmpeg": frozenset(),
    "imageio_ffmpeg": frozenset(),
    "tqdm": frozenset({"train"}),
    "fastapi": frozenset({"server"}),
    "uvicorn": frozenset(),
}


@dataclass(frozen=True)
class Finding:
    """One violation: a path relative to the root, a line from 1, and a sentence."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check_tables() -> None:
    """Raises ValueError unless both tables name known rooms only and are free of cycles."""
    for table in (ROOMS, PYTHON_ROOMS):
        done: set[str] = set()
        while len(done) < len(table):
            ready = {room for room, below in table.items() if room not in done and below <= done}
            if not ready:
                raise ValueError(f"unknown room or cycle among {sorted(set(table) - done)}")
            done |= ready


def strip_comments(source: str, *, strings: bool) -> list[str]:
    """Lines of C++ source with comments (and with `strings` also literals) blanked; line numbers stay."""
    literal = r'"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\''
    pattern = re.compile(rf'R"(\w*)\(.*?\)\1"|{literal}|//[^\n]*|/\*.*?\*/', re.DOTALL)

    def blank(match: re.Match[str]) -> str:
        text = match.group(0)
        if not text.startswith("/") and not strings:
            return text
        return "\n" * text.count("\n")

    return pattern.sub(blank, source).split("\n")


def names(items: frozenset[str]) -> str:
    """Items for a message."""
    return ", ".join(sorted(items)) or "nothing"


def public_header(owner: str, header: str) -> str | None:
    """Why room `owner` may not include vila/`header`, or None."""
    if owner in FULL_DOOR or owner in PUBLIC_HEADERS.get(header, frozenset()):
        return None
    allowed = frozenset(f"vila/{name}" for name, rooms in PUBLIC_HEADERS.items() if owner in rooms)
    return f"{owner} may not include vila/{header}; of the public headers it may include {names(allowed)}"


def include_problem(path: str, owner: str, header: str) -> str | None:
    """Why the file `path` of room or door `owner` may not include the quoted `header`, or None."""
    target, _, rest = header.partition("/")
    is_door = owner in {"bindings", "apps"}
    if target == "vila":
        return None if is_door or owner == "vila" else public_header(owner, rest)
    if owner == "vila":
        return f"a public header may not include {header}; it may include vila/ headers only"
    if is_door:
        allowed = DOOR_EXCEPTIONS.get(path, frozenset())
        if "/" not in header or target in {owner, *allowed}:
            return None
        return f"{owner} may not include {header}; it may include vila/ headers and {names(allowed)}"
    if target not in ROOMS:
        return f'{header} is in no known room; write "room/file.h" with one of {names(frozenset(ROOMS))}'
    if target != owner and target not in ROOMS[owner]:
        return f"{owner} may not include {header}; it may use {names(ROOMS[owner])}"
    return None


def check_cxx_file(root: Path, file: Path) -> Iterator[Finding]:
    """Findings of one C++ file below cpp/."""
    path = file.relative_to(root).as_posix()
    parts = path.split("/")
    owner = parts[2] if parts[1] in {"src", "include"} else parts[1]
    if parts[1] == "src" and owner not in ROOMS:
        yield Finding(path, 1, f"{owner} is no known room: expected one of {names(frozenset(ROOMS))}")
        return
    source = file.read_text(encoding="utf-8")
    for number, line in enumerate(strip_comments(source, strings=False), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1) or match.group(2)
        for reserved in RESERVED:
            if reserved.headers.fullmatch(header) and not any(fnmatch(path, home) for home in reserved.homes):
                yield Finding(path, number, f"{header} ({reserved.what}) is reserved for {', '.join(reserved.homes)}")
        quoted = match.group(1) is not None
        is_ours = header.partition("/")[0] in {*ROOMS, "vila"} and "/" in header
        if is_ours or (quoted and not any(reserved.headers.fullmatch(header) for reserved in RESERVED)):
            problem = include_problem(path, owner, header)
            if problem:
                yield Finding(path, number, problem)
    if parts[1] == "src":
        for number, line in enumerate(strip_comments(source, strings=True), 1):
            call = FORBIDDEN_CALLS.search(line)
            if call:
                name = call.group(1) or f"std::{call.group(2)}"
                yield Finding(
                    path, number, f"the library may not use {name}: it throws vila::Error and never prints or exits"
                )


def python_imports(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted module, at module level) of every import; relative ones are resolved against `package`."""
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        eager = id(node) not in lazy | typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, eager
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if module == ["vila_engine"]:
                for alias in node.names:
                    yield node.lineno, f"vila_engine.{alias.name}", eager
            else:
                yield node.lineno, ".".join(module), eager


def check_python_file(root: Path, file: Path) -> Iterator[Finding]:
    """Findings of one module of python/vila_engine."""
    path = file.relative_to(root).as_posix()
    inside = file.relative_to(root / "python" / "vila_engine").with_suffix("").parts
    room = inside[0]
    if room not in PYTHON_ROOMS:
        yield Finding(path, 1, f"{room} is not in the table: expected one of {names(frozenset(PYTHON_ROOMS))}")
        return
    package = ["vila_engine", *inside[:-1]]
    for line, module, eager in python_imports(ast.parse(file.read_text(encoding="utf-8"), path), package):
        top, _, rest = module.partition(".")
        if top == "vila_engine":
            target = rest.partition(".")[0]
            if target in PYTHON_ROOMS and target not in {room, *PYTHON_ROOMS[room]}:
                yield Finding(path, line, f"{room} may not import {module}; it may use {names(PYTHON_ROOMS[room])}")
            elif not target and room != "__main__":
                yield Finding(
                    path, line, f"{room} may not import the package itself; it may use {names(PYTHON_ROOMS[room])}"
                )
        elif eager and top in HEAVY_IMPORTS and room not in HEAVY_IMPORTS[top]:
            yield Finding(path, line, f"{room} may import {top} only inside the function that needs it")


def check(root: Path) -> list[Finding]:
    """All findings of the tree at `root`, in order of path and line."""
    check_tables()
    findings: list[Finding] = []
    for folder in ("include", "src", "bindings", "apps"):
        for file in sorted((root / "cpp" / folder).rglob("*")):
            if file.suffix in CXX_SUFFIXES and file.is_file():
                findings += check_cxx_file(root, file)
    for file in sorted((root / "python" / "vila_engine").rglob("*.py")):
        findings += check_python_file(root, file)
    return sorted(findings, key=lambda finding: (finding.path, finding.line))


def main(argv: list[str]) -> int:
    """Prints the findings of the tree named on the command line (default: this one)."""
    root = Path(argv[0]) if argv else Path(__file__).resolve().parent.parent
    if not (root / "cpp" / "src").is_dir():
        print(f"check_layers: no tree of this project: expected {root}/cpp/src", file=sys.stderr)
        return 2
    findings = check(root)
    for finding in findings:
        print(finding)
    print(f"check_layers: {len(findings)} findings" if findings else "check_layers: the rooms keep their direction")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
