#!/usr/bin/env bash
# Run a command of a systemd unit, and count its failures in a row, however long each of them took: systemd's own limit
# counts starts within a time window, which a try of an hour never reaches. After AUDIOPIPE_MAX_FAILURES (10) failures
# without a success or progress in between, it ends with exit code 70, after which the unit is not restarted.
#   run_counted.sh NAME COMMAND [ARGUMENT ...]
# Each further failure in a row makes the next try wait one AUDIOPIPE_PAUSE_S (60) longer, so that ten of them outlast an
# outage of half an hour. A command that has made progress creates the file AUDIOPIPE_PROGRESS, even if it fails then.
set -euo pipefail
name=${1:?"usage: run_counted.sh NAME COMMAND [ARGUMENT ...]"}
shift
folder=${STATE_DIRECTORY:-/var/lib/audiopipe}
count=$folder/$name.failures limit=${AUDIOPIPE_MAX_FAILURES:-10}
export AUDIOPIPE_PROGRESS=$folder/$name.progress
failures=$(cat "$count" 2>/dev/null || echo 0)
rm -f "$AUDIOPIPE_PROGRESS"
child='' signal=''
# shellcheck disable=SC2329 # traps call it
stop() {
  signal=$1
  [ -z "$child" ] || kill -s "$signal" "$child" 2>/dev/null || true
}
trap 'stop TERM' TERM
trap 'stop INT' INT

# Run a command, pass signals on to it, and return its exit code. There are two waits, because the first one ends with a
# signal and the second one with the command.
run() {
  local status=0
  "$@" &
  child=$!
  wait "$child" || status=$?
  if kill -0 "$child" 2>/dev/null; then
    status=0
    wait "$child" || status=$?
  fi
  return "$status"
}

[ "$failures" -le 1 ] || run sleep $(((failures - 1) * ${AUDIOPIPE_PAUSE_S:-60})) || true
[ -z "$signal" ] || exit 0
status=0
run "$@" || status=$?
if [ "$status" -eq 0 ] || [ "$status" -eq 3 ]; then # 3: done, with dead letters
  rm -f "$count"
  exit "$status"
fi
[ -z "$signal" ] || exit "$status" # it was stopped, for example after a spot notice
[ ! -e "$AUDIOPIPE_PROGRESS" ] || failures=0
failures=$((failures + 1))
if [ "$failures" -ge "$limit" ]; then
  rm -f "$count"
  echo "$name: $failures failures in a row without progress, the last with exit code $status; it is not tried again" >&2
  exit 70
fi
echo "$failures" >"$count"
exit "$status"
