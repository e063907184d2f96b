#!/usr/bin/env bash
# Makes a bare Debian or Ubuntu machine a node: checks the driver, makes the environment, installs the systemd units.
# Run as root, from a checkout or with SOURCE naming one. Running it again changes nothing that is right already.
#   SOURCE=/path/or/git-url bootstrap.sh worker|partition|none
# `worker` needs DASK_SCHEDULER_ADDRESS, `partition` what run_partition.sh names, both in /etc/audiopipe/environment.
set -euo pipefail
role=${1:?usage: bootstrap.sh worker|partition|none}
root=${ROOT:-}
home=$root/opt/audiopipe
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${SOURCE:-$here}

fail() { echo "bootstrap: $*" >&2; exit 1; }

check_system() {
  [ "$(id -u)" = 0 ] || fail "must run as root"
  # shellcheck source=/dev/null
  . /etc/os-release
  case "${ID:-} ${ID_LIKE:-}" in
    *debian* | *ubuntu*) ;;
    *) fail "made for Debian and Ubuntu, and this is ${PRETTY_NAME:-unknown}" ;;
  esac
  case "$role" in
    worker | partition | none) ;;
    *) fail "unknown role '$role': worker, partition or none" ;;
  esac
}

check_driver() {
  if ! command -v nvidia-smi >/dev/null; then
    [ "${ALLOW_CPU:-}" = 1 ] || fail "no NVIDIA driver: take an image that has one, or ALLOW_CPU=1 for a node without a GPU"
    return
  fi
  local version
  version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
  [ "${version%%.*}" -ge 580 ] || fail "driver $version is too old for CUDA 13: 580 or newer is needed"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends ca-certificates curl git openssl python3 python3-venv
}

make_environment() {
  id audiopipe >/dev/null 2>&1 || useradd --system --home-dir /var/lib/audiopipe --create-home --shell /usr/sbin/nologin audiopipe
  if [ "$source" != "$home" ] && [ ! -e "$home/pyproject.toml" ]; then
    git clone --quiet --depth 1 "$source" "$home"
  fi
  [ -x "$home/.venv/bin/python" ] || python3 -m venv "$home/.venv"
  "$home/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$home/constraints.txt" -e "$home"
}

install_secrets_folder() {
  install -d -m 0750 -g audiopipe "$root/etc/audiopipe"
  [ -e "$root/etc/audiopipe/environment" ] || install -m 0600 /dev/null "$root/etc/audiopipe/environment"
  chmod 0600 "$root/etc/audiopipe/environment"
  if [ -e "$root/etc/audiopipe/tls/node.key" ]; then
    chown -R root:audiopipe "$root/etc/audiopipe/tls"
    chmod 0750 "$root/etc/audiopipe/tls"
    chmod 0640 "$root/etc/audiopipe/tls/"*
  fi
}

install_units() {
  install -D -m 0644 -t "$root/etc/systemd/system" "$home"/cluster/systemd/*.service
  [ "$role" = none ] && return
  systemctl daemon-reload
  systemctl enable --now "audiopipe-$role.service" audiopipe-spot.service
}

check_system
check_driver
install_packages
make_environment
install_secrets_folder
install_units
echo "bootstrap: this node is ready as '$role'"
