#!/usr/bin/env bash
# Shut the node down if AUDIOPIPE_POWEROFF=1 (setup_workers.sh sets it): at once if its partition is done, after 15
# minutes if it has failed permanently. Use this time to read its log, or to cancel with `shutdown -c`.
#   power_off.sh done|failed
# EC2 terminates a node that shuts down, and its disk. GCP only stops it and the disk still costs money, so the node
# deletes itself: its service account needs compute.instances.delete. Without this right teardown.sh deletes it.
set -euo pipefail
event=${1:?usage: power_off.sh done|failed}
metadata=${METADATA_URL:-http://169.254.169.254}/computeMetadata/v1
systemctl=${SYSTEMCTL:-systemctl}
compute=${COMPUTE_URL:-https://compute.googleapis.com}/compute/v1

metadata_of() { curl -fsS -m 5 -H "Metadata-Flavor: Google" "$metadata/$1" 2>/dev/null; }

delete_on_gcp() {
  local zone name token
  zone=$(metadata_of instance/zone) || return 0 # another cloud
  name=$(metadata_of instance/name)
  token=$(metadata_of instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
  # curl reads the token from standard input, because `ps` shows arguments.
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -fsS -m 30 -o /dev/null -X DELETE --config - "$compute/$zone/instances/$name" ||
    echo "power_off: cannot delete $name, so its disk costs money: run cluster/teardown.sh --cloud gcp" >&2
}

[ "${AUDIOPIPE_POWEROFF:-}" = 1 ] || exit 0
case "$event" in
  done)
    # systemd runs ExecStopPost, and sets these two variables, also after a spot notice and a failure.
    [ "${SERVICE_RESULT:-}" = success ] && [ "${EXIT_STATUS:-}" = 0 ] || exit 0
    ;;
  failed)
    sleep "${AUDIOPIPE_LAST_LOOK_S:-900}"
    # Newer versions of systemd call this after every failure, also if a restart has succeeded since.
    "$systemctl" is-failed --quiet audiopipe-partition.service audiopipe-worker.service || exit 0
    ;;
  *) echo "usage: power_off.sh done|failed" >&2; exit 2 ;;
esac
delete_on_gcp
exec "$systemctl" poweroff --no-wall
