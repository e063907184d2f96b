#!/usr/bin/env bash
# Turn a bare Debian or Ubuntu machine into a node: check the driver, create the environment, install the systemd units.
# Run it as root, from a checkout or with SOURCE set to one. Running it again is safe.
#   SOURCE=/path/or/git-url bootstrap.sh worker|scheduler|partition|none
# In /etc/audiopipe/environment, `worker` needs DASK_SCHEDULER_ADDRESS, and `partition` the variables of
# run_partition.sh. `worker` and `scheduler` need the files of make_tls.sh in /etc/audiopipe/tls. `scheduler` needs no
# GPU. If the distribution's Python is too old (Debian 12, Ubuntu 22.04), uv downloads one.
set -euo pipefail
umask 022
role=${1:?usage: bootstrap.sh worker|scheduler|partition|none}
home=/opt/audiopipe
secrets=/etc/audiopipe
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${SOURCE:-$here}
python_versions='>=3.11.5,<3.14'

fail() { echo "bootstrap: $*" >&2; exit 1; }

check_system() {
  [ "$(id -u)" = 0 ] || fail "must run as root"
  # shellcheck source=/dev/null
  . /etc/os-release
  case "${ID:-} ${ID_LIKE:-}" in
    *debian* | *ubuntu*) ;;
    *) fail "needs Debian or Ubuntu, but this is ${PRETTY_NAME:-unknown}" ;;
  esac
  case "$role" in
    worker | scheduler | partition | none) ;;
    *) fail "unknown role '$role': use worker, scheduler, partition or none" ;;
  esac
}

check_driver() {
  [ "$role" = scheduler ] && return
  if ! command -v nvidia-smi >/dev/null; then
    [ "${ALLOW_CPU:-}" = 1 ] || fail "no NVIDIA driver: use an image that has one, or set ALLOW_CPU=1 for a node without a GPU"
    return
  fi
  local version
  version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1) || fail "nvidia-smi finds no GPU: $version"
  [[ $version =~ ^[0-9]+\. ]] || fail "nvidia-smi finds no GPU: $version"
  [ "${version%%.*}" -ge 580 ] || fail "driver $version is too old for CUDA 13: install 580 or newer"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends ca-certificates curl git openssl python3 python3-venv >/dev/null
}

make_environment() {
  id audiopipe >/dev/null 2>&1 || useradd --system --home-dir /var/lib/audiopipe --create-home --shell /usr/sbin/nologin audiopipe
  if [ "$source" != "$home" ] && [ ! -e "$home/pyproject.toml" ]; then
    git clone --quiet --depth 1 "$source" "$home"
  fi
  cd "$home"
  [ -x .uv/bin/pip ] || python3 -m venv .uv
  .uv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
  # Python goes where the user audiopipe can read it, and uv uses the machine's certificates, for networks with a proxy.
  # Compile now: the user audiopipe cannot write here, so Python would compile at every start.
  export UV_PYTHON_INSTALL_DIR=$home/.python UV_SYSTEM_CERTS=1 UV_COMPILE_BYTECODE=${UV_COMPILE_BYTECODE:-1}
  [ -x .venv/bin/python ] || .uv/bin/uv venv --quiet --python "$python_versions" .venv
  .uv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt \
    --editable '.[cuda,notebooks,s3,supabase]'
}

install_secrets_folder() {
  install -d -m 0750 -g audiopipe "$secrets"
  [ -e "$secrets/environment" ] || install -m 0600 /dev/null "$secrets/environment"
  chmod 0600 "$secrets/environment"
  if [ -e "$secrets/tls/node.key" ]; then
    chown -R root:audiopipe "$secrets/tls"
    chmod 0750 "$secrets/tls"
    chmod 0640 "$secrets/tls/"*
  fi
}

install_units() {
  install -D -m 0644 -t /etc/systemd/system "$home"/cluster/systemd/*.service
  [ "$role" = none ] && return
  systemctl daemon-reload
  systemctl enable --quiet "audiopipe-$role.service" audiopipe-spot.service
  systemctl start --no-block "audiopipe-$role.service" audiopipe-spot.service
}

check_system
check_driver
install_packages
make_environment
install_secrets_folder
install_units
echo "bootstrap: this node is ready as '$role'"
