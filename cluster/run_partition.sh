#!/usr/bin/env bash
# One partition of a run, by a node on its own: no scheduler, the output and the ledger are all that nodes share.
# Everything comes from the environment (/etc/audiopipe/environment, mode 0600), so that no key is seen in `ps`.
#   PARTITION_INDEX, PARTITION_COUNT, AUDIOPIPE_CATALOG, AUDIOPIPE_OUTPUT; optional AUDIOPIPE_LANGUAGE, AUDIOPIPE_LEDGER,
#   and AUDIOPIPE_OPTIONS: further options of `audiopipe run`, as "--audio-format opus --min-snr-db 15"
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
read -ra more <<<"${AUDIOPIPE_OPTIONS:-}"
arguments+=("${more[@]}")
status=0
"$audiopipe" "${arguments[@]}" &
child=$!
# A spot notice, a stop or a pod's end comes as SIGTERM to this script: the driver gives up what is under way and keeps
# what is committed. Waiting twice: the first wait ends with the signal, the second with the driver.
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || status=$?
if kill -0 "$child" 2>/dev/null; then
  status=0
  wait "$child" || status=$?
fi
# Dead letters are a result, not a failure: a restart would find the same.
[ "$status" -eq 3 ] && status=0
exit "$status"
