"""The house around the code: dependency direction, and the truths that are written in two places."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_layers
import pytest

ROOT = Path(__file__).resolve().parents[2]


def tree(root: Path, files: dict[str, str]) -> Path:
    """A made-up project below `root`."""
    (root / "cpp" / "src").mkdir(parents=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_this_tree_keeps_its_direction() -> None:
    assert [str(finding) for finding in check_layers.check(ROOT)] == []


ALLOWED = {
    "a room below": ("cpp/src/ops/linear.h", '#include "tensor/tensor.h"\n#include <vector>\n'),
    "its own room": ("cpp/src/text/bpe.cpp", '#include "text/bpe.h"\n'),
    "the errors": ("cpp/src/text/bpe.cpp", '#include "vila/error.h"\n'),
    "the full door from the engine": (
        "cpp/src/engine/engine.cpp",
        '#include "vila/engine.h"\n#include "models/vlm.h"\n',
    ),
    "json at home": ("cpp/src/io/json.cpp", "#include <nlohmann/json.hpp>\n"),
    "png at home": ("cpp/src/image/decode.cpp", "#include <png.h>\n#include <jpeglib.h>\n"),
    "intrinsics at home": ("cpp/src/kernels/simd/avx2.h", "#include <immintrin.h>\n"),
    "pybind11 at home": ("cpp/bindings/engine.cpp", '#include <pybind11/pybind11.h>\n#include "vila/engine.h"\n'),
    "the layout from quantize.cpp": ("cpp/bindings/quantize.cpp", '#include "layout/packing.h"\n'),
    "an include in a comment": ("cpp/src/text/a.h", '// #include "engine/session.h"\n/*\n#include "ops/ops.h"\n*/\n'),
    "a call in a string": ("cpp/src/text/a.cpp", 'const char* s = "use printf(1)"; // or exit(0)\n'),
    "a member called exit": ("cpp/src/text/a.cpp", "state.exit(1); loop->abort(); snprintf(b, 2, f);\n"),
    "std::cout in an app": ("cpp/apps/vila_run.cpp", '#include "vila/vila.h"\nint main() { std::cout << 1; }\n'),
    "a heavy import in a function": ("python/vila_engine/media.py", "def f():\n    from PIL import Image\n"),
    "a heavy import for types": (
        "python/vila_engine/media.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
    ),
    "the core from Python": ("python/vila_engine/engine.py", "from . import _core\nfrom .media import load\n"),
    "a sibling in a package": ("python/vila_engine/convert/writer.py", "from .names import n\nfrom .. import _core\n"),
}


@pytest.mark.parametrize(("path", "text"), ALLOWED.values(), ids=ALLOWED.keys())
def test_accepts(tmp_path: Path, path: str, text: str) -> None:
    assert check_layers.check(tree(tmp_path, {path: text})) == []


FORBIDDEN = {
    "up": ("cpp/src/ops/a.cpp", '\n#include "models/vlm.h"\n', 2, "ops may not include models/vlm.h; it may use base,"),
    "beside": (
        "cpp/src/text/a.cpp",
        '#include "image/resize.h"\n',
        1,
        "text may not include image/resize.h; it may use base",
    ),
    "kernels know no tensor": ("cpp/src/kernels/a.h", '#include "tensor/tensor.h"\n', 1, "it may use base, layout"),
    "layers bypass the seam": (
        "cpp/src/layers/a.h",
        '#include "kernels/dispatch.h"\n',
        1,
        "layers may not include kernels",
    ),
    "angle brackets do not hide it": ("cpp/src/base/a.h", "#include <engine/kv_cache.h>\n", 1, "it may use nothing"),
    "blanks do not hide it": ("cpp/src/base/a.h", '  #  include "engine/kv_cache.h"\n', 1, "base may not include"),
    "unknown room": ("cpp/src/utils/a.h", "", 1, "utils is no known room"),
    "unknown include": ("cpp/src/text/a.h", '#include "common.h"\n', 1, "common.h is in no known room"),
    "the door from below": ("cpp/src/ops/a.h", '#include "vila/engine.h"\n', 1, "ops may not include vila/engine.h"),
    "internals in a public header": (
        "cpp/include/vila/a.h",
        '#include "tensor/tensor.h"\n',
        1,
        "a public header may not",
    ),
    "a binding past the door": (
        "cpp/bindings/engine.cpp",
        '#include "models/vlm.h"\n',
        1,
        "bindings may not include models",
    ),
    "an app past the door": ("cpp/apps/run.cpp", '#include "engine/kv_cache.h"\n', 1, "apps may not include engine"),
    "png elsewhere": ("cpp/src/image/resize.cpp", "#include <png.h>\n", 1, "reserved for cpp/src/image/decode.cpp"),
    "jpeg elsewhere": ("cpp/apps/run.cpp", "#include <jpeglib.h>\n", 1, "reserved for cpp/src/image/decode.cpp"),
    "json elsewhere": ("cpp/src/models/config.cpp", "#include <nlohmann/json.hpp>\n", 1, "nlohmann-json"),
    "pybind11 elsewhere": ("cpp/src/engine/a.cpp", "#include <pybind11/numpy.h>\n", 1, "reserved for cpp/bindings/*"),
    "intrinsics elsewhere": (
        "cpp/src/kernels/norm.h",
        "#include <arm_neon.h>\n",
        1,
        "reserved for cpp/src/kernels/simd/*",
    ),
    "printf": ("cpp/src/ops/a.cpp", "\n\nint f() { return std::printf(nullptr); }\n", 3, "may not use printf"),
    "cout": ("cpp/src/ops/a.cpp", 'void f() { std::cout << "x"; }\n', 1, "may not use std::cout"),
    "exit": ("cpp/src/ops/a.cpp", "void f() { exit(1); }\n", 1, "may not use exit"),
    "abort": ("cpp/src/base/a.h", "/* a\n b */ void f() { ::abort(); }\n", 2, "may not use abort"),
    "Python up": (
        "python/vila_engine/engine.py",
        "from . import server\n",
        1,
        "engine may not import vila_engine.server",
    ),
    "Python up, absolute": ("python/vila_engine/media.py", "import vila_engine.cli\n", 1, "media may not import"),
    "Python up from a package": (
        "python/vila_engine/convert/a.py",
        "def f():\n    from ..engine import Engine\n",
        2,
        "convert may not import vila_engine.engine; it may use _core",
    ),
    "Python: whole package": (
        "python/vila_engine/engine.py",
        "import vila_engine\n",
        1,
        "may not import the package itself",
    ),
    "unknown module": ("python/vila_engine/utils.py", "", 1, "utils is not in the table"),
    "heavy import": ("python/vila_engine/engine.py", "import torch.nn\n", 1, "may import torch only inside"),
}


@pytest.mark.parametrize(("path", "text", "line", "message"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_refuses(tmp_path: Path, path: str, text: str, line: int, message: str) -> None:
    findings = check_layers.check(tree(tmp_path, {path: text}))
    assert [(finding.path, finding.line) for finding in findings] == [(path, line)]
    assert message in findings[0].message


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, {"cpp/src/text/a.h": '#include "ops/ops.h"\n'})
    assert check_layers.main([str(tmp_path)]) == 1
    assert "cpp/src/text/a.h:1: text may not include ops/ops.h" in capsys.readouterr().out
    (tmp_path / "cpp/src/text/a.h").write_text("")
    assert check_layers.main([str(tmp_path)]) == 0
    assert check_layers.main([str(tmp_path / "nowhere")]) == 2


def test_tables_with_a_cycle_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check_layers.ROOMS, "base", frozenset({"layout"}))
    with pytest.raises(ValueError, match="cycle"):
        check_layers.check_tables()


def test_linked_rooms_agree_with_the_table() -> None:
    """A room's CMake target links exactly rooms that it may include."""
    pattern = re.compile(r"vila_room\(\s*(\w+)([^)]*)\)")
    seen = 0
    for file in (ROOT / "cpp" / "src").rglob("CMakeLists.txt"):
        for room, arguments in pattern.findall(file.read_text(encoding="utf-8")):
            linked = arguments.partition("DEPS")[2].split()
            known = {dep for dep in linked if dep in check_layers.ROOMS}
            assert known <= check_layers.ROOMS[room], f"{file.relative_to(ROOT)}: {room} links {sorted(known)}"
            seen += 1
    assert seen > 0


def test_presets_are_complete() -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text(encoding="utf-8"))
    configured = {preset["name"] for preset in presets["configurePresets"] if not preset.get("hidden")}
    built = {preset["name"] for preset in presets["buildPresets"]}
    tested = {preset["name"] for preset in presets["testPresets"] if not preset.get("hidden")}
    assert configured == built
    assert tested <= configured


def test_every_dependency_of_a_binary_has_its_notice() -> None:
    table = (ROOT / "third_party" / "README.md").read_text(encoding="utf-8")
    notices = set(re.findall(r"licenses/([\w.-]+\.txt)", table))
    present = {path.name for path in (ROOT / "third_party" / "licenses").glob("*.txt")}
    assert notices == present


def test_the_readme_names_only_verbs_that_exist() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/HACKING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)(?:[A-Z_]+=\S+ )*make ([a-z-]+)", text, re.MULTILINE))
        assert named <= verbs, f"{page}: {sorted(named - verbs)}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "third_party" / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links {target}"


@pytest.mark.skipif(importlib.util.find_spec("vila_engine") is None, reason="the package is not installed")
def test_importing_the_package_is_light() -> None:
    script = "import sys, vila_engine; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert loaded.isdisjoint(check_layers.HEAVY_IMPORTS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("script", ["tools/system_packages.sh", "tools/demo.sh", ".ci/run"])
def test_shell_scripts_parse_and_stop_at_errors(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111, f"{script} is not executable"
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=20)
