#!/usr/bin/env bash
# Cross-builds the wheel for Linux on ARM 64 with the distribution's compiler: aarch64_wheel.sh PYTHON [OUTPUT_FOLDER]
# PYTHON has the build requirements of pyproject.toml and decides the version of Python that the wheel is for. Its headers
# serve, because both sides are 64-bit little-endian Linux. The wheel cannot be imported here; see docs/BOARDS.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
output=${2:-dist}

tools/system_packages.sh arm
version=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
pybind=$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')
json=$("$python" -c 'import nlohmann_json; print(nlohmann_json.get_include())')

# The platform and the suffix that the target's own Python would report.
export _PYTHON_HOST_PLATFORM=linux-aarch64
export SETUPTOOLS_EXT_SUFFIX=.cpython-$version-aarch64-linux-gnu.so
"$python" -m pip wheel . --no-deps --no-build-isolation -w "$output" \
  -C "cmake.define.CMAKE_TOOLCHAIN_FILE=$PWD/cmake/toolchains/aarch64-linux-gnu.cmake" \
  -C "cmake.define.Python_INCLUDE_DIR=$include" \
  -C "cmake.define.pybind11_DIR=$pybind" \
  -C "cmake.define.PYTHON_MODULE_EXTENSION=$SETUPTOOLS_EXT_SUFFIX" \
  -C "cmake.define.CMAKE_CXX_FLAGS=-isystem $json" \
  -C "cmake.define.CMAKE_SHARED_LINKER_FLAGS=-static-libstdc++ -static-libgcc" \
  -C "cmake.define.CMAKE_MODULE_LINKER_FLAGS=-static-libstdc++ -static-libgcc"
