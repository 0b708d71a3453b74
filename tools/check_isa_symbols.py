#!/usr/bin/env python3
"""Checks that no object of the library leaves its dispatch level, by its symbols and by its instructions.

An object of kernels/isa/ is compiled for more than the baseline, so (1) it may define no global or weak symbol outside
of its namespace except its table: the linker keeps one copy of an inline function, and that copy would run before
dispatch; (2) it may use only the instructions of its level. Every other object keeps to the baseline: x86-64-v2 or
plain ARMv8-A. Needs the nm and objdump of binutils. Prints one line per finding and exits with 1 if there are any.

    python tools/check_isa_symbols.py BUILD_DIR [--nm NM] [--objdump OBJDUMP]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What an instruction set may use beyond the baseline. cmake/VilaIsa.cmake asks the compiler for the same.
AVX2 = frozenset({"avx", "fma", "f16c"})
AVX512 = AVX2 | {"avx512"}
LEVELS: dict[str, frozenset[str]] = {
    "scalar": frozenset(),
    "avx2": AVX2,
    "avxvnni": AVX2 | {"avx-vnni"},
    "avx512": AVX512,
    "avx512vnni": AVX512 | {"avx512-vnni"},
    "neon": frozenset(),
    "neon_dotprod": frozenset({"dotprod"}),
    "neon_i8mm": frozenset({"dotprod", "i8mm"}),
}

# Files that may use a feature outside of kernels/isa/: detection itself asks the system which registers it saves.
EXCEPTIONS: dict[str, frozenset[str]] = {"cpu_features.cpp.o": frozenset({"xsave"})}


def _features(table: dict[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((feature, re.compile(pattern)) for feature, pattern in table.items())


# x86: mnemonics in AT&T syntax, first match counts. How an instruction is encoded says more than its name, so there are
# three tables: EVEX (AVX-512 and its extensions; everything else there is F, BW, VL or DQ), VEX, and the old encodings.
X86_EVEX = _features(
    {
        "avx512-vnni": r"vpdp(busd|wssd)s?$",
        "avx512-vbmi": r"vperm(b|i2b|t2b)$|vpmultishiftqb$",
        "avx512-vbmi2": r"vp(compress|expand)[bw]$|vpsh[lr]dv?[wdq]$",
        "avx512-bitalg": r"vpopcnt[bwdq]$|vpshufbitqmb$",
        "avx512-ifma": r"vpmadd52[hl]uq$",
        "avx512-cd": r"vpconflict[dq]$|vplzcnt[dq]$|vpbroadcastm",
        "avx512-bf16": r"vcvtne2?ps2bf16|vdpbf16ps$",
        "avx512-fp16": r"v\w+[ps]h$(?<!vcvtps2ph)|v\w*(ph|sh)2|v\w+2[ps]hx$|vmovw$",
        "gfni, vaes, vpclmulqdq": r"vgf2p8|vaes|vpclmul",
        "avx512-er": r"v(exp2|rcp28|rsqrt28)[ps][sd]$|v(gather|scatter)pf",
        "avx512-vp2intersect": r"vp2intersect",
    }
)
# vcvtph2ps is F16C in VEX and AVX-512F in EVEX.
X86_EVEX_PLAIN = re.compile(r"vcvtph2ps$|vcvtps2ph$")
X86_VEX = _features(
    {
        "avx-vnni": r"vpdp(busd|wssd)s?$",
        "avx-vnni-int8, -int16": r"vpdp[bw][su][su]ds?$",
        "avx-ifma": r"vpmadd52[hl]uq$",
        "avx-ne-convert": r"vbcstn|vcvtne",
        "gfni, vaes, vpclmulqdq": r"vgf2p8|vaes(?!keygenassist)|vpclmul",
        "sha512, sm3, sm4": r"vsha512|vsm[34]",
        "amx": r"t(ile|dp|mmul)|ldtilecfg|sttilecfg",
        "avx512": r"k(mov|and|andn|or|ortest|test|xor|xnor|not|add|unpck|shift)\w*$",
        "fma": r"vfn?m(add|sub|addsub|subadd)\d{3}[ps][sd]$",
        "f16c": r"vcvtph2ps$|vcvtps2ph$",
        "avx": r"v",
        "bmi": r"(andn|bextr|blsi|blsmsk|blsr|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx)[lq]?$",
    }
)
# tzcnt is left out: it is "rep bsf" to an older CPU, and compilers write it where both give the same.
X86_LEGACY = _features(
    {
        "lzcnt": r"lzcnt",
        "movbe": r"movbe",
        "adx": r"ad[co]x[lq]?$",
        "aes, pclmulqdq": r"aes|pclmul",
        "sha": r"sha(1|256)",
        "gfni": r"gf2p8",
        "xsave": r"x(get|set)bv$|xsave|xrstor",
        "rdrand": r"rd(rand|seed|pid)",
        "cache control": r"clflushopt$|clwb$|prefetchw|prefetchit|cldemote$",
        "tsx": r"x(begin|end|abort|test)$",
        "waitpkg, movdir": r"u(monitor|mwait)$|tpause$|movdir|enqcmd",
    }
)

# AArch64: matched against "mnemonic operands", first match counts; an instruction that no line names is ARMv8.0-A.
# objdump is asked for every extension, so that none of them shows as an undefined word.
ARM = _features(
    {
        "sve": r".*\bz\d+\.|.*\bp\d+[./]|(rdvl|cnt[bhwd]|ptrue|whilel\w+|addvl|addpl|smstart|smstop) ",
        "bf16": r"bf(dot|mmla|mlal[bt]|cvtn?2?) ",
        "i8mm": r"(smmla|ummla|usmmla|usdot|sudot) ",
        "dotprod": r"[su]dot ",
        "fp16": r"f(?!cvt[lnx]|mlal|mlsl|cmla|cadd)\w+ .*\bv\d+\.[48]?h\b|f(?!cvt )\w+ .*\bh\d+\b"
        r"|fcvt[a-z]+ .*\bh\d+\b|[su]cvtf .*(\bh\d+|\.[48]h)\b",
        "fp16fml": r"fml[as]l2? ",
        "fcma": r"fc(mla|add) ",
        "rdm": r"sqrdml[as]h ",
        "lse": r"(cas|ld(add|clr|set|eor|smax|smin|umax|umin)|st(add|clr|set|eor|smax|smin|umax|umin)|swp)p?a?l?[bh]? ",
        "rcpc": r"(ldapu?r|stlur)\w* ",
        "crc": r"crc32",
        "crypto": r"(aes|sha(1|256|512)|sm[34])|pmull2? .*\.1q|(eor3|bcax|rax1|xar) ",
        "jscvt": r"fjcvtzs ",
        "frintts": r"frint(32|64)",
        "flagm": r"(cfinv|rmif|setf8|setf16|axflag|xaflag)\b",
        "pauth": r"(pac|aut)[id][ab] |(ret|br|blr|eret)a[ab]|ldra[ab] |xpac[id] ",
        "memtag": r"(irg|gmi|addg|subg|subps?|stz?2?gm?|st2g|stgp|ldgm?) ",
        "mops": r"(cpyf?[pme]|set[pme])\w* ",
        "cssc": r"(abs|cnt|ctz|smax|smin|umax|umin) [wx]\d",
        "wfxt, ls64": r"wf[ei]t |(ld|st)64b",
    }
)

PREFIXES = frozenset(
    {"rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "addr32", "cs", "ds", "es", "fs", "gs", "ss", "{vex}"}
)
LEGACY_PREFIX_BYTES = frozenset({"26", "2e", "36", "3e", "64", "65", "67"})

LABEL = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\t([0-9a-f ]+?)\s*\t(.+)$")


@dataclass(frozen=True)
class Finding:
    """One symbol, or one feature within a function, that an object may not have."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def x86_feature(code: str, text: str) -> str | None:
    """What beyond x86-64-v2 an instruction needs, or None; `code` is bytes in hexadecimal, `text` AT&T syntax."""
    first = next((byte for byte in code.split() if byte not in LEGACY_PREFIX_BYTES), "")
    words = text.split()
    while words and (words[0] in PREFIXES or words[0].startswith("rex")):
        words.pop(0)
    mnemonic = words[0] if words else ""
    if mnemonic in {"(bad)", ".byte"}:
        return "unknown to objdump"
    if first == "62":
        if X86_EVEX_PLAIN.match(mnemonic):
            return "avx512"
        return _first_match(X86_EVEX, mnemonic) or "avx512"
    if first in {"c4", "c5"}:
        return _first_match(X86_VEX, mnemonic) or "unknown VEX"
    return _first_match(X86_LEGACY, mnemonic)


def arm_feature(text: str) -> str | None:
    """What beyond ARMv8.0-A an instruction needs, or None."""
    if text.startswith(".inst"):
        return "unknown to objdump"
    plain = re.sub(r"<[^>]*>|//.*", "", text)
    return _first_match(ARM, " ".join(plain.split()) + " ")


def _first_match(table: Iterable[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    return next((feature for feature, pattern in table if pattern.match(text)), None)


def used_features(disassembly: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(function, feature, instruction) of every instruction beyond the baseline in objdump's output.

    Raises:
        ValueError: The file is neither x86-64 nor AArch64, or no instruction was found in it where a function is.
    """
    architecture = ""
    function = ""
    labels = instructions = 0
    for line in disassembly:
        if "file format" in line:
            architecture = line.split()[-1]
            if "x86-64" not in architecture and "aarch64" not in architecture:
                raise ValueError(f"expected x86-64 or aarch64, got {architecture}")
        elif label := LABEL.match(line):
            function = label[1]
            labels += 1
        elif instruction := INSTRUCTION.match(line):
            instructions += 1
            code, text = instruction[1], instruction[2].replace("\t", " ").strip()
            feature = arm_feature(text) if "aarch64" in architecture else x86_feature(code, text)
            if feature is not None:
                yield function, feature, text
    if not architecture or (labels and not instructions):
        raise ValueError("expected the disassembly of an object file, got none")


def instruction_findings(path: str, disassembly: Iterable[str], allowed: frozenset[str]) -> list[Finding]:
    """One finding per function and feature outside of `allowed`."""
    examples: dict[tuple[str, str], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for function, feature, text in used_features(disassembly):
        if feature not in allowed:
            examples.setdefault((function, feature), text)
            counts[function, feature] += 1
    level = ", ".join(sorted(allowed)) or "the baseline"
    return [
        Finding(path, f"{function} uses {feature} ({counts[function, feature]} x, first: {text}); allowed is {level}")
        for (function, feature), text in examples.items()
    ]


def symbol_findings(path: str, isa: str, symbols: Iterable[str]) -> list[Finding]:
    """Findings of the lines of `nm -P -g --defined-only` of an object of kernels/isa/."""
    names = [line.split()[0] for line in symbols if line.strip()]
    # _Z, then what the symbol is for (a vtable, a guard, a local entity), then the nested name.
    inside = re.compile(rf"_Z(?:T[VTIS]|GV|Z)*N[rVKRO]*4vila7kernels{len(isa)}{isa}")
    table = f"_ZN4vila7kernels{len(isa) + 2}k_{isa}E"
    findings = [
        Finding(path, f"defines {name} for the linker; allowed are vila::kernels::{isa} and its table")
        for name in names
        if name != table and not inside.match(name)
    ]
    if table not in names:
        findings.append(Finding(path, f"defines no table: expected {table}"))
    return findings


def _output(command: list[str]) -> list[str]:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise ValueError(f"{command[0]} failed: {run.stderr.strip()}")
    return run.stdout.splitlines()


def check(build: Path, nm: str, objdump: str) -> list[Finding]:
    """All findings of the library's objects below `build`/cpp.

    Raises:
        ValueError: No objects, an instruction set of the build without its object, or a tool failed.
    """
    objects = sorted((build / "cpp").rglob("*.o"))
    expected = set(re.findall(r"VILA_ISA\((\w+)\)", (build / "cpp/include/kernels/isa_list.inc").read_text("utf-8")))
    seen: set[str] = set()
    findings: list[Finding] = []
    for file in objects:
        path = file.relative_to(build).as_posix()
        match = re.search(r"vila_kernels_(\w+)\.dir/", path)
        allowed = EXCEPTIONS.get(file.name, frozenset())
        if match:
            isa = match[1]
            seen.add(isa)
            if isa not in LEVELS:
                findings.append(Finding(path, f"{isa} is not in the table of levels"))
                continue
            allowed = LEVELS[isa]
            findings += symbol_findings(path, isa, _output([nm, "-P", "-g", "--defined-only", str(file)]))
        findings += instruction_findings(path, _output([objdump, "-d", str(file)]), allowed)
    if not seen >= expected or len(objects) == len(seen):
        raise ValueError(f"expected objects of {', '.join(sorted(expected))} and of the rooms, got {sorted(seen)}")
    return findings


def main(argv: list[str]) -> int:
    """Prints the findings of the build folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, metavar="BUILD_DIR")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--objdump", default="objdump")
    args = parser.parse_args(argv)
    try:
        findings = check(args.build, args.nm, args.objdump)
    except (OSError, ValueError) as error:
        print(f"check_isa_symbols: {error}", file=sys.stderr)
        return 2
    for finding in findings:
        print(finding)
    print(
        f"check_isa_symbols: {len(findings)} findings"
        if findings
        else "check_isa_symbols: every object keeps its level"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
