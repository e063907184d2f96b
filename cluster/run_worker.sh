#!/usr/bin/env bash
# Run the Dask workers of a node for the scheduler at DASK_SCHEDULER_ADDRESS: one for every four cores of a GPU, or one
# per core if there is no GPU.
# They end after DEATH_TIMEOUT (five minutes) without a scheduler; systemd restarts them for the next scheduler.
set -euo pipefail
: "${DASK_SCHEDULER_ADDRESS:?}"
dask=${DASK_COMMAND:-/opt/audiopipe/.venv/bin/dask}
tls=${AUDIOPIPE_TLS:-/etc/audiopipe/tls}
# Dask's profiler can deadlock Python 3.11 (dask/distributed#8616).
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$tls/ca.pem
export DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT=$tls/node.pem DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY=$tls/node.key
timeout=${DEATH_TIMEOUT:-300} folder=${STATE_DIRECTORY:-/var/lib/audiopipe}
if command -v nvidia-smi >/dev/null; then
  exec "$dask" spec "$DASK_SCHEDULER_ADDRESS" --spec "{
    \"cls\": \"audiopipe.cluster.cuda_workers.CUDAWorkers\",
    \"opts\": {
      \"nthreads\": 2, \"death_timeout\": \"$timeout\",
      \"dashboard_address\": \"127.0.0.1:0\", \"local_directory\": \"$folder\"
    }
  }"
fi
exec "$dask" worker "$DASK_SCHEDULER_ADDRESS" --nworkers "$(nproc)" --nthreads 2 --death-timeout "$timeout" \
  --dashboard-address 127.0.0.1:0 --local-directory "$folder"
