"""The machine that a benchmark ran on, in the words of the system, and its limits as measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from vila_engine import _core
from vila_engine.bench.limits import Limits

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROC_UNIT = 1024  # /proc counts in KiB


def measure_limits(isa: str, threads: int) -> Limits:
    """Measures what memory and arithmetic units give now, in about a second."""
    found = _core.measure_limits(isa=isa, threads=threads)
    return Limits(
        found["read_bytes_per_second"],
        found["dot_macs_per_second"],
        found["fma_macs_per_second"],
        found["huge_page_bytes"],
    )


def describe_machine() -> dict[str, Any]:
    """Processor, cores, kernels, memory and page sizes, load; what the system does not tell is None."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "threads": _core.default_threads(),
        "isa": _core.chosen_kernels(),
        "usable_isas": usable_isas(),
        "memory_bytes": kib_of("/proc/meminfo", "MemTotal"),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "transparent_huge_pages": _chosen(HUGE_PAGES),
        "load_average": os.getloadavg()[0],
        "version": _core.__version__,
    }


def usable_isas() -> list[str]:
    """The kernel tables that this machine can run, best first."""
    return [name for name, usable in _core.kernel_names() if usable]


def kib_of(path: str, name: str) -> int | None:
    """A size from a file of /proc, in bytes."""
    value = _field(path, name)
    return None if value is None else int(value.split()[0]) * PROC_UNIT


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    return next(values, None)


def _chosen(path: Path) -> str | None:
    """The word in brackets of a setting such as "always [madvise] never"."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or None
