#!/usr/bin/env bash
# One firing of a schedule: run.ipynb by papermill with a file of parameters. Keeps the executed notebook and its page as
# the record, and ends with the run's own exit code, which papermill does not know:
#   0 done   3 done, with dead letters   4 not finished: fire again   2 misused   1 failed
# usage: run.sh PARAMETERS.yaml [more of papermill's options, like -p output s3://bucket/prefix]
# Environment: AUDIOPIPE_RECORDS, the folder of the records (default ./records); keys of stores and databases.
set -euo pipefail
parameters=${1:?"usage: run.sh PARAMETERS.yaml [-p NAME VALUE ...]"}
shift
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${AUDIOPIPE_BIN:-$home/.venv/bin}
records=${AUDIOPIPE_RECORDS:-records}
record=$records/$(basename "$parameters" .yaml)-$(date -u +%Y%m%dT%H%M%SZ)-$$
mkdir -p "$records"
if [ ! -r "$parameters" ]; then
  echo "$parameters: no such file of parameters; cluster/schedule/params has examples" >&2
  exit 2
fi
"$bin/papermill" --no-progress-bar --log-level ERROR -f "$parameters" "$@" \
  "$home/notebooks/run.ipynb" "$record.ipynb" >&2 &
child=$!
# A stop is passed on; what is committed stays, and the record says that the run is not finished.
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || true
wait "$child" || true
trap - TERM INT
"$bin/audiopipe" export "$record.ipynb" "$record.html" --print summary --exit-code
