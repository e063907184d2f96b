#!/usr/bin/env bash
# Delete the machines and disks of a run, also those that the cluster profiles `ec2` and `gcp` started under the same
# name. It fails if anything is left that costs money.
#   RUN=audiopipe cluster/teardown.sh [--cloud ec2|gcp]
# It searches one region (EC2: AWS_REGION or that of `aws configure`) or project (GCP): the one that the command uses.
set -euo pipefail
cloud=ec2
if [ "${1:-}" = --cloud ]; then
  cloud=${2:?usage: teardown.sh [--cloud ec2|gcp]}
fi
run=${RUN:-audiopipe}
tag="Name=tag:audiopipe-run,Values=$run"

nodes_ec2() {
  aws ec2 describe-instances --filters "$tag" "Name=instance-state-name,Values=pending,running,stopping,stopped" \
    --query 'Reservations[].Instances[].InstanceId' --output text
}

# Only detached disks: the others are deleted with their node.
disks_ec2() {
  aws ec2 describe-volumes --filters "$tag" "Name=status,Values=available,error" --query 'Volumes[].VolumeId' --output text
}

end_ec2() {
  local nodes disk
  nodes=$(nodes_ec2)
  if [ -n "$nodes" ]; then
    # shellcheck disable=SC2086  # one word per node
    aws ec2 terminate-instances --instance-ids $nodes --output text >/dev/null
    # shellcheck disable=SC2086
    aws ec2 wait instance-terminated --instance-ids $nodes
  fi
  for disk in $(disks_ec2); do
    aws ec2 delete-volume --volume-id "$disk"
  done
}

nodes_gcp() {
  gcloud compute instances list --filter "labels.audiopipe-run=$run" --format 'csv[no-heading,separator=" "](name,zone)'
}

# A boot disk has the name of its node and no label.
disks_gcp() {
  gcloud compute disks list --filter "name~^$run-[0-9]+\$ AND -users:*" --format 'csv[no-heading,separator=" "](name,zone)'
}

end_gcp() {
  local name zone
  while read -r name zone; do
    gcloud compute instances delete "$name" --zone "$zone" --delete-disks all --quiet
  done < <(nodes_gcp)
  while read -r name zone; do
    gcloud compute disks delete "$name" --zone "$zone" --quiet
  done < <(disks_gcp)
}

case "$cloud" in
  ec2 | gcp) ;;
  *) echo "teardown: unknown cloud '$cloud': use ec2 or gcp" >&2; exit 2 ;;
esac
before=$("nodes_$cloud")
"end_$cloud"
left="$("nodes_$cloud") $("disks_$cloud")"
if [ -n "${left// /}" ]; then
  echo "teardown: these resources of '$run' are left and cost money: ${left# }" >&2
  exit 1
fi
echo "'$run': deleted ${before:-nothing, because there was no node}; no node and no disk is left"
