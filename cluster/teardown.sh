#!/usr/bin/env bash
# Ends every EC2 node of a run and shows what, if anything, is still there to be billed: RUN=audiopipe cluster/teardown.sh
set -euo pipefail
run=${RUN:-audiopipe}
filter="Name=tag:audiopipe-run,Values=$run"
alive="Name=instance-state-name,Values=pending,running,stopping,stopped"
instances=$(aws ec2 describe-instances --filters "$filter" "$alive" --query 'Reservations[].Instances[].InstanceId' --output text)
if [ -n "$instances" ]; then
  # shellcheck disable=SC2086  # one word a node
  aws ec2 terminate-instances --instance-ids $instances --output text >/dev/null
  # shellcheck disable=SC2086
  aws ec2 wait instance-terminated --instance-ids $instances
fi
volumes=$(aws ec2 describe-volumes --filters "$filter" --query 'Volumes[].VolumeId' --output text)
for volume in $volumes; do
  aws ec2 delete-volume --volume-id "$volume"
done
echo "'$run': nodes ended: ${instances:-none}; volumes deleted: ${volumes:-none}"
