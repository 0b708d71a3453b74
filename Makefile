# One verb per need; `make help` lists them. Everything lands in .venv and build/.
#
#   PYTHON=python3.12   interpreter of the virtual environment, 3.10 or newer
#   VENV=.venv          where it lies
#   JOBS=2              parallel compile jobs
#   TORCH=1             `make setup` and `make test` also install torch; tests against the reference skip without it
#   WORK=build/quality  where `make quality` keeps questions and answers, about 1 GB
#   LINT_TIDY=0         `make lint` without clang-tidy

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)
PRESET ?= dev
WORK ?= build/quality
LINT_TIDY ?= 1
TORCH ?= 0

BIN := $(abspath $(VENV))/bin
PACKAGE_SOURCES := $(shell find cpp cmake third_party python/vila_engine CMakeLists.txt pyproject.toml -type f \
  -not -path '*/__pycache__/*' -not -name '*.so')
CXX_FILES = $(shell find cpp tests benchmarks examples -type f \( -name '*.cpp' -o -name '*.h' \) 2>/dev/null)
CXX_UNITS = $(shell find cpp/src cpp/bindings cpp/apps -name '*.cpp' -not -path '*/kernels/isa/*')
CMAKE_FILES = $(shell find . -path ./build -prune -o -path './.venv*' -prune -o -path ./shared -prune -o \
  \( -name CMakeLists.txt -o -name '*.cmake' \) -print)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# The tools of the environment come first, and CMake finds its Python there.
export PATH := $(BIN):$(PATH)
export VIRTUAL_ENV := $(abspath $(VENV))
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

.DEFAULT_GOAL := help
.PHONY: help setup build test test-cpp test-python test-arm demo fmt lint bench quality ci clean

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(VENV)/bin/python:
	tools/system_packages.sh venv "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)

# The package as a user gets it: built by pip in isolation.
$(VENV)/package.stamp: $(VENV)/bin/python $(PACKAGE_SOURCES)
	tools/system_packages.sh compiler
	$(BIN)/python -m pip install --quiet ".[convert]"
	@touch $@

# Tools first, then an editable install without isolation, so that later builds are incremental.
$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml
	tools/system_packages.sh compiler tests
	$(BIN)/python -m pip install --quiet cmake ninja $$(sed -n 's/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d '",')
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	@touch $@

$(VENV)/torch.stamp: $(VENV)/dev.stamp
ifeq ($(TORCH),1)
	$(BIN)/python -m pip install torch==2.13.0
	@touch $@
endif

setup: $(VENV)/dev.stamp $(VENV)/torch.stamp  ## .venv with the package (editable) and all development tools

build: $(VENV)/dev.stamp  ## compile the library, apps and tests of PRESET (dev) into build/PRESET
	cmake --preset $(PRESET) --log-level=WARNING
	cmake --build --preset $(PRESET)

test: setup  ## all tests: ctest, then pytest
	@mkdir -p build
	$(MAKE) --no-print-directory test-cpp | tee build/ctest.log
	$(MAKE) --no-print-directory test-python | tee build/pytest.log
	@echo; grep -h 'tests passed' build/ctest.log; tail -n 1 build/pytest.log

test-cpp: build
	ctest --preset $(PRESET) --parallel $(JOBS)

test-python: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	$(BIN)/python -m pytest

# Tests of a kernel table run on a CPU model for it, all others on one that has everything; the scalar table needs no
# comparison with itself. Then every golden in every weight format: equal bits here and there.
ARM_CTEST = ctest --preset aarch64-qemu --parallel $(JOBS)
test-arm: $(VENV)/dev.stamp  ## cross-build for ARM 64, run the C++ tests and the goldens under qemu
	tools/system_packages.sh arm
	$(MAKE) --no-print-directory build PRESET=aarch64-qemu
	$(MAKE) --no-print-directory build PRESET=dev
	QEMU_CPU=max $(ARM_CTEST) -E '/neon$$|/neon_dotprod$$|EqualsTheScalarTable.*/scalar$$'
	QEMU_CPU=cortex-a76 $(ARM_CTEST) -R '/neon_dotprod$$|Dispatch'
	QEMU_CPU=cortex-a72 $(ARM_CTEST) -R '/neon$$|Dispatch'
	$(BIN)/python tests/arm/parity.py build/dev build/aarch64-qemu

demo: $(VENV)/package.stamp  ## install the package into .venv and describe a picture
	tools/demo.sh $(BIN)

fmt: $(VENV)/dev.stamp  ## format C++, Python and CMake files in place
	$(BIN)/clang-format -i $(CXX_FILES)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/gersemi --in-place --quiet $(CMAKE_FILES)

lint: $(VENV)/dev.stamp  ## check style, types and dependency direction; with clang-tidy unless LINT_TIDY=0
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/gersemi --check $(CMAKE_FILES)
	$(BIN)/python tools/check_layers.py
ifeq ($(LINT_TIDY),1)
	tools/system_packages.sh tidy
	cmake --preset dev --log-level=WARNING
	printf '%s\n' $(CXX_UNITS) | xargs -P $(JOBS) -n 4 clang-tidy -p build/dev --quiet
endif

bench:  ## run the micro-benchmarks
	tools/system_packages.sh compiler bench
	$(MAKE) build PRESET=bench
	build/bench/benchmarks/kernels_bench

quality: $(VENV)/dev.stamp  ## measure the demo model in all weight formats, write docs/QUALITY.md (installs torch)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[train]"
	$(BIN)/python tools/quality_report.py --work $(WORK)

ci:  ## what the continuous integration runs
	.ci/run

clean:  ## remove build/ and .venv
	rm -rf build $(VENV)
