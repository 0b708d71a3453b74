"""The scan for instructions and symbols outside of an object's dispatch level, on made-up text and on real objects."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import check_isa_symbols as scan
import pytest

X86 = {
    # Bytes and text as objdump prints them -> the feature, None for the baseline.
    ("0f 58 c1", "addps  %xmm1,%xmm0"): None,
    ("66 0f 38 04 c1", "pmaddubsw %xmm1,%xmm0"): None,
    ("f3 48 0f b8 c7", "popcnt %rdi,%rax"): None,
    ("f3 48 0f bc c7", "tzcnt  %rdi,%rax"): None,
    ("f3 48 ab", "rep stos %rax,%es:(%rdi)"): None,
    ("f0 48 0f b1 17", "lock cmpxchg %rdx,(%rdi)"): None,
    ("66 2e 0f 1f 84 00 00", "cs nopw 0x0(%rax,%rax,1)"): None,
    ("f3 0f 1e fa", "endbr64"): None,
    ("0f 00 e8", "verw   %ax"): None,
    ("f3 48 0f bd c7", "lzcnt  %rdi,%rax"): "lzcnt",
    ("48 0f 38 f0 07", "movbe  (%rdi),%rax"): "movbe",
    ("0f 01 d0", "xgetbv"): "xsave",
    ("66 0f 38 dc c1", "aesenc %xmm1,%xmm0"): "aes, pclmulqdq",
    ("c5 fc 58 c1", "vaddps %ymm1,%ymm0,%ymm0"): "avx",
    ("c5 f8 77", "vzeroupper"): "avx",
    ("c4 e2 75 b8 c2", "vfmadd231ps %ymm2,%ymm1,%ymm0"): "fma",
    ("c4 e2 7d 13 07", "vcvtph2ps (%rdi),%ymm0"): "f16c",
    ("c4 e2 f3 f7 c7", "shrx   %rcx,%rdi,%rax"): "bmi",
    ("c4 e2 75 50 c2", "{vex} vpdpbusd %ymm2,%ymm1,%ymm0"): "avx-vnni",
    ("62 f2 75 28 50 c2", "vpdpbusd %ymm2,%ymm1,%ymm0"): "avx512-vnni",
    ("62 f1 7c 48 58 c1", "vaddps %zmm1,%zmm0,%zmm0"): "avx512",
    ("62 f1 7c 28 58 c1", "vaddps %ymm1,%ymm0,%ymm0"): "avx512",  # only the encoding tells
    ("62 f2 7d 48 13 07", "vcvtph2ps (%rdi),%zmm0"): "avx512",
    ("62 f3 7d 48 1d 07 08", "vcvtps2ph $0x8,%zmm0,(%rdi)"): "avx512",
    ("62 f5 7c 48 58 c1", "vaddph %zmm1,%zmm0,%zmm0"): "avx512-fp16",
    ("62 f2 75 48 8d c2", "vpermb %zmm2,%zmm1,%zmm0"): "avx512-vbmi",
    ("62 f2 7e 48 72 c0", "vcvtneps2bf16 %zmm0,%ymm0"): "avx512-bf16",
    ("c5 f8 92 cf", "kmovw  %edi,%k1"): "avx512",
    ("65 c5 f8 28 00", "vmovaps %gs:(%rax),%xmm0"): "avx",
    ("06", "(bad)"): "unknown to objdump",
}
ARM = {
    "add v0.4s, v1.4s, v2.4s": None,
    "fmla v0.4s, v1.4s, v2.s[0]": None,
    "smull v0.8h, v1.8b, v2.8b": None,
    "sadalp v0.4s, v1.8h": None,
    "fcvtl v0.4s, v1.4h": None,
    "fcvtn2 v0.8h, v1.4s": None,
    "fcvt h0, s1": None,
    "ldr h0, [x0]": None,
    "pmull v0.8h, v1.8b, v2.8b": None,
    "cnt v0.8b, v0.8b": None,
    "abs v0.4s, v0.4s": None,
    "smax v0.4s, v0.4s, v1.4s": None,
    "paciasp": None,
    "b.eq 40 <swp+0x8>  // b.none": None,
    "bl 0 <crc32>": None,
    "subs x0, x1, x2": None,
    "sdot v0.4s, v1.16b, v2.16b": "dotprod",
    "udot v0.4s, v1.16b, v2.4b[1]": "dotprod",
    "smmla v0.4s, v1.16b, v2.16b": "i8mm",
    "usdot v0.4s, v1.16b, v2.16b": "i8mm",
    "fadd v0.8h, v1.8h, v2.8h": "fp16",
    "fmadd h0, h1, h2, h3": "fp16",
    "scvtf h0, w1": "fp16",
    "fmlal v0.4s, v1.4h, v2.4h": "fp16fml",
    "bfdot v0.4s, v1.8h, v2.8h": "bf16",
    "ldaddal w0, w1, [x2]": "lse",
    "casal w0, w1, [x2]": "lse",
    "swpb w0, w1, [x2]": "lse",
    "ldapr w0, [x1]": "rcpc",
    "crc32cx w0, w1, x2": "crc",
    "aese v0.16b, v1.16b": "crypto",
    "pmull v0.1q, v1.1d, v2.1d": "crypto",
    "sqrdmlah v0.4s, v1.4s, v2.4s": "rdm",
    "mul z0.s, p0/m, z0.s, z1.s": "sve",
    "retaa": "pauth",
    "abs x0, x1": "cssc",
    ".inst 0x0123ffff ; undefined": "unknown to objdump",
}


@pytest.mark.parametrize(("code", "text"), X86)
def test_x86_instructions(code: str, text: str) -> None:
    assert scan.x86_feature(code, text) == X86[code, text]


@pytest.mark.parametrize("text", ARM)
def test_arm_instructions(text: str) -> None:
    assert scan.arm_feature(text) == ARM[text]


DISASSEMBLY = """
a.o:     file format elf64-x86-64

Disassembly of section .text:

0000000000000000 <f>:
   0:\t0f 58 c1             \taddps  %xmm1,%xmm0
   3:\tc5 fc 58 c1          \tvaddps %ymm1,%ymm0,%ymm0
   7:\t62 f1 fd 48 6f 80 00 \tvmovdqa64 0x11(%rax),%zmm0
   e:\t11 00 00
  11:\tc3                   \tret
""".splitlines()


def test_counts_per_function_and_feature() -> None:
    assert scan.instruction_findings("a.o", DISASSEMBLY, scan.AVX512) == []
    found = scan.instruction_findings("a.o", [*DISASSEMBLY, *DISASSEMBLY], frozenset({"avx"}))
    assert [str(finding) for finding in found] == [
        "a.o: f uses avx512 (2 x, first: vmovdqa64 0x11(%rax),%zmm0); allowed is avx"
    ]
    assert len(scan.instruction_findings("a.o", DISASSEMBLY, frozenset())) == 2


@pytest.mark.parametrize(
    "text", ["", "a.o: file format elf32-i386", "a.o: file format elf64-x86-64\n0000000000000000 <f>:\n"]
)
def test_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        scan.instruction_findings("a.o", text.splitlines(), frozenset())


TABLE = "_ZN4vila7kernels6k_avx2E D 0 58"


def test_symbols_inside_the_namespace() -> None:
    inside = [
        TABLE,
        "_ZN4vila7kernels4avx29matmul_w4ERKNS0_11MatmulQArgsENS0_5RangeE W 0 10",
        "_ZZN4vila7kernels4avx23expENS1_6F32x16EE5table V 0 10",
        "_ZNK4vila7kernels4avx21A1fEv W 0 10",
        "",
    ]
    assert scan.symbol_findings("a.o", "avx2", inside) == []


@pytest.mark.parametrize(
    "symbol",
    [
        "_ZN4vila10f16_to_f32Et W 0 10",  # an inline function of another room
        "_ZSt3minIN4vila7kernels4avx21AEERKT_S5_S5_ W 0 10",  # std::min of our own type
        "_ZN4vila7kernels6avx5121fEv W 0 10",
        "_ZN4vila7kernels9k_avxvnniE D 0 10",
        "memcpy W 0 10",
    ],
)
def test_symbols_outside_of_the_namespace(symbol: str) -> None:
    (finding,) = scan.symbol_findings("a.o", "avx2", [TABLE, symbol])
    assert f"defines {symbol.split(maxsplit=1)[0]}" in str(finding)


def test_a_missing_table_is_found() -> None:
    (finding,) = scan.symbol_findings("a.o", "avx2", [])
    assert "defines no table" in str(finding)


# A kernel object of each level; the two leaks are an inline function and an instruction of the next level.
SOURCE = """
namespace vila {
#ifdef LEAK
__attribute__((noinline)) inline int shared(int x) { return x * 3; }
#else
static int shared(int x) { return x * 3; }
#endif
namespace kernels {
namespace NAME { __attribute__((noinline)) inline int f(int x) { return shared(x); } }
#ifdef BEYOND
__attribute__((target(TARGET))) static void beyond() { asm volatile(BEYOND); }
#else
static void beyond() {}
#endif
struct Table { int (*f)(int); void (*g)(); };
extern const Table TABLE_NAME;
constinit const Table TABLE_NAME = {NAME::f, beyond};
}}
"""
COMPILERS = {
    "x86_64": ("c++" if platform.machine() == "x86_64" else "x86_64-linux-gnu-g++", "nm", "objdump"),
    "aarch64": ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-nm", "aarch64-linux-gnu-objdump"),
}
# (ISA, an instruction of its level, an instruction of the next level)
KERNELS = {
    "x86_64": [
        ("scalar", "pmaddubsw %xmm1,%xmm0", "vaddps %xmm1,%xmm0,%xmm0"),
        ("avx2", "vfmadd231ps %ymm2,%ymm1,%ymm0", "vaddps %zmm1,%zmm0,%zmm0"),
        ("avx512", "vaddps %zmm1,%zmm0,%zmm0", "vpdpbusd %zmm2,%zmm1,%zmm0"),
        ("avx512vnni", "vpdpbusd %zmm2,%zmm1,%zmm0", "vpermb %zmm2,%zmm1,%zmm0"),
    ],
    "aarch64": [
        ("neon", "smull v0.8h, v1.8b, v2.8b", "sdot v0.4s, v1.16b, v2.16b"),
        ("neon_dotprod", "sdot v0.4s, v1.16b, v2.16b", "smmla v0.4s, v1.16b, v2.16b"),
        ("neon_i8mm", "smmla v0.4s, v1.16b, v2.16b", "bfdot v0.4s, v1.8h, v2.8h"),
    ],
}
ALL_KERNELS = [(machine, *kernel) for machine, kernels in KERNELS.items() for kernel in kernels]


def build_tree(root: Path, machine: str, isa: str, *flags: str) -> list[str]:
    """A build folder with one kernel object and one other; the tool's command line for it."""
    compiler, nm, objdump = COMPILERS[machine]
    if not all(map(shutil.which, (compiler, nm, objdump))):
        pytest.skip(f"needs {compiler} and binutils")
    folder = root / f"cpp/src/kernels/CMakeFiles/vila_kernels_{isa}.dir/isa"
    room = root / "cpp/src/ops/CMakeFiles/vila_ops.dir"
    listed = root / "cpp/include/kernels"
    for path in (folder, room, listed):
        path.mkdir(parents=True)
    (listed / "isa_list.inc").write_text(f"VILA_ISA({isa})\n")
    (root / "source.cpp").write_text(SOURCE)
    common = [compiler, "-std=c++20", "-O1", "-c", str(root / "source.cpp"), f"-DNAME={isa}", f"-DTABLE_NAME=k_{isa}"]
    baseline = ["-march=x86-64-v2"] if machine == "x86_64" else []
    for target, extra in ((folder / f"{isa}.cpp.o", [*baseline, *flags]), (room / "ops.cpp.o", baseline)):
        subprocess.run([*common, *extra, "-o", str(target)], check=True, timeout=60)
    return [str(root), "--nm", nm, "--objdump", objdump]


def beyond(machine: str, instruction: str) -> list[str]:
    """Flags that put one instruction into the object, whatever the compiler's own level."""
    target = "arch=armv8.6-a" if machine == "aarch64" else "avx512f"
    return [f'-DBEYOND="{instruction}"', f'-DTARGET="{target}"']


@pytest.mark.parametrize(("machine", "isa", "own", "next_level"), ALL_KERNELS)
def test_real_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, machine: str, isa: str, own: str, next_level: str
) -> None:
    assert scan.main(build_tree(tmp_path / "own", machine, isa, *beyond(machine, own))) == 0, capsys.readouterr().out
    assert scan.main(build_tree(tmp_path / "next", machine, isa, *beyond(machine, next_level))) == 1
    assert next_level.split(maxsplit=1)[0] in capsys.readouterr().out
    assert scan.main(build_tree(tmp_path / "leak", machine, isa, "-DLEAK")) == 1
    assert "defines _ZN4vila6sharedEi for the linker" in capsys.readouterr().out


def test_an_object_of_a_room_keeps_to_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = build_tree(tmp_path, "x86_64", "avx2", "-mavx2")
    kernel = tmp_path / "cpp/src/kernels/CMakeFiles/vila_kernels_avx2.dir/isa/avx2.cpp.o"
    room = tmp_path / "cpp/src/ops/CMakeFiles/vila_ops.dir/ops.cpp.o"
    subprocess.run(
        ["c++", "-std=c++20", "-O2", "-mavx2", "-x", "c++", "-", "-c", "-o", str(room)],
        input="void f(float* x) { for (int i = 0; i < 8; ++i) x[i] *= 2; }",
        text=True,
        check=True,
        timeout=60,
    )
    assert kernel.exists()
    assert scan.main(command) == 1
    assert "uses avx" in capsys.readouterr().out


def test_a_missing_object_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = build_tree(tmp_path, "x86_64", "scalar")
    (tmp_path / "cpp/include/kernels/isa_list.inc").write_text("VILA_ISA(avx2)\nVILA_ISA(scalar)\n")
    assert scan.main(command) == 2
    assert "expected objects of avx2, scalar" in capsys.readouterr().err
    assert scan.main([str(tmp_path / "nowhere")]) == 2
