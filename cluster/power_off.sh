#!/usr/bin/env bash
# Ends a node's bill if AUDIOPIPE_POWEROFF=1, as setup_workers.sh sets it: now if its partition is done, in a quarter of
# an hour if it has failed for good (time to look at it, or to say `shutdown -c`).
#   power_off.sh done|failed
# EC2 terminates a node that shuts down, with its disk. GCP only stops it, and its disk goes on costing, so there the node
# asks to be deleted: its service account needs compute.instances.delete. Where it has not, teardown.sh deletes it.
set -euo pipefail
why=${1:?usage: power_off.sh done|failed}
metadata=${METADATA_URL:-http://169.254.169.254}/computeMetadata/v1
systemctl=${SYSTEMCTL:-systemctl}
compute=${COMPUTE_URL:-https://compute.googleapis.com}/compute/v1

about_me() { curl -fsS -m 5 -H "Metadata-Flavor: Google" "$metadata/$1" 2>/dev/null; }

delete_on_gcp() {
  local zone name token
  zone=$(about_me instance/zone) || return 0 # another cloud
  name=$(about_me instance/name)
  token=$(about_me instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
  # The token by standard input: arguments are seen in `ps`.
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -fsS -m 30 -o /dev/null -X DELETE --config - "$compute/$zone/instances/$name" ||
    echo "power_off: may not delete $name; its disk is billed until cluster/teardown.sh --cloud gcp" >&2
}

[ "${AUDIOPIPE_POWEROFF:-}" = 1 ] || exit 0
case "$why" in
  done)
    # systemd sets both for ExecStopPost: a spot notice and a failure come here too, and are not done.
    [ "${SERVICE_RESULT:-}" = success ] && [ "${EXIT_STATUS:-}" = 0 ] || exit 0
    ;;
  failed)
    sleep "${AUDIOPIPE_LAST_LOOK_S:-900}"
    # Newer versions of systemd call this after every failure, also one that was mended by a restart.
    "$systemctl" is-failed --quiet audiopipe-partition.service || exit 0
    ;;
  *) echo "usage: power_off.sh done|failed" >&2; exit 2 ;;
esac
delete_on_gcp
exec "$systemctl" poweroff --no-wall
