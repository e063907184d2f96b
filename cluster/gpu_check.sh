#!/usr/bin/env bash
# Check a GPU with one command, in at most eight minutes, also on a machine without a network:
#
#   cluster/gpu_check.sh pack [FOLDER]       # here: gather wheels for CPython 3.12, weights and speech
#   cluster/gpu_check.sh run [FOLDER] [OUT]  # there: install them into a temporary folder, check, write OUT/report.md
#   cluster/gpu_check.sh rehearse [FOLDER] [OUT]  # there: run the same parts on a fake GPU
#
# With an installed environment and a GPU, `make gpu-check` needs no wheels.
#
# The machine needs the repository, FOLDER, CPython 3.12 with torch and torchaudio 2.11, numpy, numba, pandas, pyarrow, scipy,
# psutil, fsspec, pytest and hypothesis. FOLDER is .gpu-check, OUT is reports/benchmarks/gpu-check, by default.
set -euo pipefail
cd "$(dirname "$0")/.."

# What a shard and the benchmarks import, without what such a machine has, and without DuckDB, which takes 24 MB.
WHEELS=(
  av soundfile cffi pycparser langcodes tenacity platformdirs nvidia-ml-py
  dask distributed cloudpickle locket partd toolz tblib zict tornado sortedcontainers msgpack
  pydantic pydantic-core annotated-types typing-inspection typing-extensions click rich pygments markdown-it-py mdurl pyyaml
)
MAX_MIB=60
SECONDS_OF_SPEECH=60

fail() {
  echo "gpu_check: $1" >&2
  exit 1
}

pack() {
  local folder=$1 python=${PYTHON:-.venv/bin/python} names=() wheel version
  [ -x "$python" ] || fail "no $python: run make demo first, or set PYTHON"
  mkdir -p "$folder/wheels" "$folder/audio"
  for wheel in "${WHEELS[@]}"; do
    version=$(sed -n "s/^$wheel==//Ip" constraints.txt)
    [ -n "$version" ] || fail "constraints.txt has no version of $wheel"
    names+=("$wheel==$version")
  done
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_5_x86_64 \
    --dest "$folder/wheels" "${names[@]}"
  speech "$python" "$folder"
  weights "$python" "$folder"
  local size
  size=$(du -sm --apparent-size "$folder" | cut -f1)
  [ "$size" -le "$MAX_MIB" ] || fail "$folder has $size MiB, more than $MAX_MIB"
  echo "packed $(find "$folder/wheels" -name '*.whl' | wc -l) wheels, two recordings and rated segments in $folder: $size MiB"
}

speech() {
  mkdir -p "$2/audio"
  "$1" -m audiopipe.bench.inputs "$2/audio" "$SECONDS_OF_SPEECH"
  "$1" -m audiopipe.bench.scorer_inputs "$2/audio"
}

# Copy the code of a package and some of its data: two networks of many in speechmos, one form of Silero's of seven.
weights() {
  local from
  from=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  mkdir -p "$2/site"
  (cd "$from" && tar -cf - speechmos/__init__.py speechmos/dnsmos_models/{sig_bak_ovr,model_v8}.onnx \
    silero_vad/*.py silero_vad/data/__init__.py silero_vad/data/silero_vad.jit silero_vad-*.dist-info/METADATA) |
    tar -xf - -C "$2/site"
}

check() {
  local python=$1 program=$2 folder=$3 out=$4
  "$python" -m audiopipe.bench.gpu_check "$folder/audio" "$out" "$program" || fail "not all parts passed: see $out/report.md"
  echo "all parts passed: $out/report.md"
}

install_and_check() {
  local program=$1 folder=$2 out=$3 python=${PYTHON:-python3} site
  [ -d "$folder/wheels" ] || fail "no $folder/wheels: make it with cluster/gpu_check.sh pack, and bring it along"
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
    --root-user-action ignore --upgrade --target "$site" "$folder"/wheels/*.whl
  cp -r "$folder"/site/. "$site"
  export PYTHONPATH="$site:$PWD:$PWD/tests" PYTHONDONTWRITEBYTECODE=1
  check "$python" "$program" "$folder" "$out"
}

case "${1:-}" in
  pack) pack "${2:-.gpu-check}" ;;
  run) install_and_check "" "${2:-.gpu-check}" "${3:-reports/benchmarks/gpu-check}" ;;
  check-here) speech "${PYTHON:-.venv/bin/python}" .gpu-check && check "${PYTHON:-.venv/bin/python}" "" .gpu-check reports/benchmarks/gpu-check ;;
  rehearse) install_and_check tests/rehearse_gpu_part.py "${2:-.gpu-check}" "${3:-.gpu-check/rehearsal}" ;;
  *) fail "usage: cluster/gpu_check.sh pack [FOLDER] | run [FOLDER] [OUT] | rehearse [FOLDER] [OUT]" ;;
esac
