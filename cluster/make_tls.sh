#!/usr/bin/env bash
# Create a certificate authority for one cluster, and the certificate that its scheduler, workers and clients share.
# node.key allows its holder to run code on the cluster: copy the folder by a secret store or over ssh, with mode 0600.
#   cluster/make_tls.sh DIR [DAYS]
set -euo pipefail
folder=${1:?usage: make_tls.sh DIR [DAYS]}
days=${2:-30}
umask 077
mkdir -p "$folder"
cd "$folder"
if [ -e node.key ]; then
  echo "make_tls: $folder/node.key exists; delete the folder to create a new authority" >&2
  exit 1
fi
openssl req -x509 -newkey rsa:3072 -nodes -days "$days" -subj "/CN=audiopipe authority" -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:3072 -nodes -subj "/CN=audiopipe node" -keyout node.key -out node.csr 2>/dev/null
openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -out node.pem 2>/dev/null
# Without ca.key no further certificate can be signed; a new cluster gets a new authority.
rm -f ca.key ca.srl node.csr
echo "created ca.pem, node.pem and node.key in $folder; they are valid for $days days"
