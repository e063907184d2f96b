#!/usr/bin/env bash
# Dask workers of a node, for the scheduler at DASK_SCHEDULER_ADDRESS: one a GPU, or one a core where there is no GPU.
# They end if no scheduler is there for DEATH_TIMEOUT (five minutes); systemd starts them again, for the next scheduler.
set -euo pipefail
: "${DASK_SCHEDULER_ADDRESS:?}"
dask=${DASK_COMMAND:-/opt/audiopipe/.venv/bin/dask}
tls=${AUDIOPIPE_TLS:-/etc/audiopipe/tls}
# In Dask's profiler Python 3.11 deadlocks now and then.
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
kind=(cuda worker)
command -v nvidia-smi >/dev/null || kind=(worker --nworkers "$(nproc)")
exec "$dask" "${kind[@]}" "$DASK_SCHEDULER_ADDRESS" --nthreads 2 --death-timeout "${DEATH_TIMEOUT:-300}" \
  --dashboard-address 127.0.0.1:0 --local-directory "${STATE_DIRECTORY:-/var/lib/audiopipe}" \
  --tls-ca-file "$tls/ca.pem" --tls-cert "$tls/node.pem" --tls-key "$tls/node.key"
