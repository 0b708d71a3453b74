#!/usr/bin/env bash
# Makes sure that what only the distribution has is there: system_packages.sh venv PYTHON | GROUP...
# Groups: compiler, tests, arm, bench, tidy. Installs with apt-get where it may (root, or sudo without a password);
# otherwise says the one command that does it and stops.
set -euo pipefail

missing=()

need() {  # need PACKAGE COMMAND...: PACKAGE is missing where COMMAND fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

compiles() {  # compiles HEADER...: the compiler knows C++20 and the headers
  printf '#include <%s>\n' "$@" | "${CXX:-c++}" -std=c++20 -x c++ -fsyntax-only -
}

check_python() {  # check_python PYTHON
  if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "Python 3.10 or newer is needed: expected PYTHON=python3.x, got $("$1" --version 2>&1 || echo "no $1")" >&2
    exit 1
  fi
  need "python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" "$1" -c 'import ensurepip, venv'
}

while [ $# -gt 0 ]; do
  case $1 in
    venv) check_python "$2"; shift ;;
    compiler) need g++ compiles concepts ;;
    tests) need libgtest-dev compiles gtest/gtest.h; need libpng-dev compiles png.h; need libjpeg-dev compiles cstdio jpeglib.h ;;
    arm)
      need g++-aarch64-linux-gnu command -v aarch64-linux-gnu-g++
      need qemu-user command -v qemu-aarch64
      need libgtest-dev test -f /usr/src/googletest/CMakeLists.txt
      ;;
    bench) need libbenchmark-dev compiles benchmark/benchmark.h ;;
    tidy) need clang-tidy command -v clang-tidy ;;
    *) echo "unknown group: expected venv, compiler, tests, arm, bench or tidy, got $1" >&2; exit 2 ;;
  esac
  shift
done
[ ${#missing[@]} -gt 0 ] || exit 0

run=()
if [ "$(id -u)" -ne 0 ]; then
  run=(sudo)
  if ! sudo -n true 2>/dev/null; then
    echo "Missing system packages. Please run: sudo apt-get install -y ${missing[*]}" >&2
    exit 1
  fi
fi
if ! command -v apt-get >/dev/null; then
  echo "Missing, to be installed with the system's package manager (Debian's names): ${missing[*]}" >&2
  exit 1
fi
echo "installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq
"${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
