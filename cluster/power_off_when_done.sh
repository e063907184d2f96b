#!/usr/bin/env bash
# After a partition that is done, if AUDIOPIPE_POWEROFF=1: the machine switches itself off, which ends its bill where
# the cloud terminates on shutdown (setup_workers.sh asks for that). systemd sets SERVICE_RESULT and EXIT_STATUS.
set -euo pipefail
if [ "${AUDIOPIPE_POWEROFF:-}" = 1 ] && [ "${SERVICE_RESULT:-}" = success ] && [ "${EXIT_STATUS:-}" = 0 ]; then
  exec "${SYSTEMCTL:-systemctl}" poweroff --no-wall
fi
