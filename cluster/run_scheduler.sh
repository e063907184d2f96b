#!/usr/bin/env bash
# Run Dask's scheduler for the nodes of `bootstrap.sh worker` and the profile `existing`: encrypted, on all addresses of
# this machine, with the dashboard on loopback. Workers reconnect to a scheduler that restarts at the same address.
set -euo pipefail
dask=${DASK_COMMAND:-/opt/audiopipe/.venv/bin/dask}
tls=${AUDIOPIPE_TLS:-/etc/audiopipe/tls}
exec "$dask" scheduler --host tls:// --port "${SCHEDULER_PORT:-8786}" --dashboard-address 127.0.0.1:8787 \
  --tls-ca-file "$tls/ca.pem" --tls-cert "$tls/node.pem" --tls-key "$tls/node.key"
