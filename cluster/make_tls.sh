#!/usr/bin/env bash
# A certificate authority for one cluster, and the one certificate that its scheduler, workers and clients show each
# other. Who holds node.key may run code on the cluster: copy the folder by a secret store or over ssh, mode 0600.
#   cluster/make_tls.sh DIR [DAYS]
set -euo pipefail
folder=${1:?usage: make_tls.sh DIR [DAYS]}
days=${2:-30}
umask 077
mkdir -p "$folder"
cd "$folder"
if [ -e node.key ]; then
  echo "$folder/node.key is there already; delete the folder to make a new authority" >&2
  exit 1
fi
openssl req -x509 -newkey rsa:3072 -nodes -days "$days" -subj "/CN=audiopipe authority" -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:3072 -nodes -subj "/CN=audiopipe node" -keyout node.key -out node.csr 2>/dev/null
openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -out node.pem 2>/dev/null
# Nobody can sign further nodes: a new cluster gets a new authority.
rm -f ca.key ca.srl node.csr
echo "ca.pem, node.pem and node.key in $folder, good for $days days"
