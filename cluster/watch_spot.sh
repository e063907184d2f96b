#!/usr/bin/env bash
# Wait for the cloud's notice that this spot machine will be reclaimed (EC2: in two minutes; GCP: in thirty seconds),
# and then stop the given units, so that their drivers end cleanly and other nodes take over.
#   watch_spot.sh UNIT...
set -euo pipefail
[ "$#" -gt 0 ] || { echo "usage: watch_spot.sh UNIT..." >&2; exit 2; }
metadata=${METADATA_URL:-http://169.254.169.254}
every_s=${EVERY_S:-5}

noticed() {
  local token
  if token=$(curl -fsS -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/latest/api/token" 2>/dev/null); then
    curl -fsS -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action" 2>/dev/null
  else
    [ "$(curl -fsS -m 2 -H "Metadata-Flavor: Google" "$metadata/computeMetadata/v1/instance/preempted" 2>/dev/null)" = TRUE ]
  fi
}

until noticed; do sleep "$every_s"; done
echo "spot notice: stopping $*"
exec "${SYSTEMCTL:-systemctl}" stop "$@"
