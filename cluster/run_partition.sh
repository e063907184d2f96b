#!/usr/bin/env bash
# Run one partition on an independent node: there is no scheduler, and nodes share only the output and the ledger.
# All parameters come from the environment (/etc/audiopipe/environment, mode 0600), because `ps` shows arguments.
#   PARTITION_INDEX, PARTITION_COUNT, AUDIOPIPE_CATALOG, AUDIOPIPE_OUTPUT; optional AUDIOPIPE_LANGUAGE,
#   AUDIOPIPE_LEDGER and AUDIOPIPE_OPTIONS: further options of `audiopipe run`, such as "--audio-format opus --min-snr-db 15"
set -euo pipefail
: "${PARTITION_INDEX:?}" "${PARTITION_COUNT:?}" "${AUDIOPIPE_CATALOG:?}" "${AUDIOPIPE_OUTPUT:?}"
audiopipe=${AUDIOPIPE_COMMAND:-/opt/audiopipe/.venv/bin/audiopipe}
arguments=(
  run --quiet --json
  --catalog "$AUDIOPIPE_CATALOG" --output "$AUDIOPIPE_OUTPUT" --language "${AUDIOPIPE_LANGUAGE:-all}"
  --partition-index "$PARTITION_INDEX" --partition-count "$PARTITION_COUNT"
)
if [ -n "${AUDIOPIPE_LEDGER:-}" ]; then
  arguments+=(--ledger "$AUDIOPIPE_LEDGER")
fi
read -ra options <<<"${AUDIOPIPE_OPTIONS:-}"
arguments+=("${options[@]}")
status=0
summary=$(mktemp) || summary=/dev/null # on a full disk
"$audiopipe" "${arguments[@]}" >"$summary" &
child=$!
# A spot notice, a stop or the end of a pod arrives as SIGTERM: the driver cancels its running shards and keeps its
# commits. There are two waits, because the first one ends with the signal and the second one with the driver.
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || status=$?
if kill -0 "$child" 2>/dev/null; then
  status=0
  wait "$child" || status=$?
fi
cat "$summary"
# See run_counted.sh: a try that committed shards is not one of a node that cannot work.
if [ -n "${AUDIOPIPE_PROGRESS:-}" ] && grep -q '"new_shards": [1-9]' "$summary"; then
  touch "$AUDIOPIPE_PROGRESS"
fi
[ "$summary" = /dev/null ] || rm -f "$summary"
# Exit code 3 means done with dead letters: it is a success, and a restart would not change it.
[ "$status" -eq 3 ] && status=0
exit "$status"
