#!/usr/bin/env bash
# One scheduled run: execute run.ipynb with papermill and a file of parameters, save the executed notebook and its HTML
# page, and end with the run's exit code (papermill has only success and failure):
#   0 done   3 done, with dead letters   4 not finished: run it again   2 wrong usage   1 failed
#   5 done, but more than max_failed_share of the videos failed
# usage: run.sh PARAMETERS.yaml [other options of papermill, such as -p output s3://bucket/prefix]
# Environment: AUDIOPIPE_RECORDS, the folder of the saved notebooks (default ./records); keys of stores and databases.
set -euo pipefail
parameters=${1:?"usage: run.sh PARAMETERS.yaml [-p NAME VALUE ...]"}
shift
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${AUDIOPIPE_BIN:-$home/.venv/bin}
records=${AUDIOPIPE_RECORDS:-records}
record=$records/$(basename "$parameters" .yaml)-$(date -u +%Y%m%dT%H%M%SZ)-$$
mkdir -p "$records"
if [ ! -r "$parameters" ]; then
  echo "run: no parameter file $parameters; see cluster/schedule/params for examples" >&2
  exit 2
fi
# Papermill writes every parameter into the notebook, so a secret is refused before.
"$bin/python" -P -m audiopipe.redaction "$parameters" "$@"
"$bin/papermill" --no-progress-bar --log-level ERROR -f "$parameters" "$@" \
  "$home/notebooks/run.ipynb" "$record.ipynb" >&2 &
child=$!
# Pass a stop on to papermill; commits stay, and the saved notebook shows that the run is not finished.
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || true
wait "$child" || true
trap - TERM INT
"$bin/audiopipe" html "$record.ipynb" "$record.html" --print summary --exit-code
