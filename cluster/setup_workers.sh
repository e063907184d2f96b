#!/usr/bin/env bash
# Starts N nodes on EC2, each for one partition of a run; they switch themselves off, and are gone, when they are done.
#   cluster/setup_workers.sh N
# Needs the aws command with rights to run instances, and in the environment:
#   AMI               an Ubuntu or Debian image with NVIDIA's driver     SECRETS         s3://bucket/prefix of `environment`
#   INSTANCE_PROFILE  its role reads SECRETS and the source, and writes  SECURITY_GROUP  needs no way in
#   SOURCE            git URL of this repository
# Optional: INSTANCE_TYPE (g5.4xlarge), RUN (audiopipe), SPOT=0 for on-demand, DISK_GB (200), MAX_HOURS (36), DRY_RUN=1
# It costs N times the price of INSTANCE_TYPE an hour: see `audiopipe plan --profile ec2 --nodes N` first.
set -euo pipefail
count=${1:?usage: setup_workers.sh N}
[[ $count =~ ^[1-9][0-9]*$ ]] || { echo "setup_workers: '$count' is not a number of nodes" >&2; exit 2; }
: "${AMI:?}" "${SECRETS:?}" "${INSTANCE_PROFILE:?}" "${SECURITY_GROUP:?}" "${SOURCE:?}"
type=${INSTANCE_TYPE:-g5.4xlarge}
run=${RUN:-audiopipe}
minutes=$((${MAX_HOURS:-36} * 60))
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
user_data=$(mktemp)
trap 'rm -f "$user_data"' EXIT

market=()
if [ "${SPOT:-1}" = 1 ]; then
  market=(--instance-market-options '{"MarketType":"spot","SpotOptions":{"SpotInstanceType":"one-time"}}')
fi
dry=()
if [ "${DRY_RUN:-0}" = 1 ]; then
  dry=(--dry-run)
fi

for ((index = 0; index < count; index++)); do
  sed -e "s|@SECRETS@|${SECRETS%/}|" -e "s|@SOURCE@|$SOURCE|" -e "s|@INDEX@|$index|" -e "s|@COUNT@|$count|" \
    -e "s|@MAX_MINUTES@|$minutes|" "$here/cloud-init.yaml" >"$user_data"
  tags="{Key=Name,Value=$run-$index},{Key=audiopipe-run,Value=$run},{Key=audiopipe-partition,Value=$index}"
  aws ec2 run-instances --count 1 --image-id "$AMI" --instance-type "$type" \
    --iam-instance-profile "Name=$INSTANCE_PROFILE" --security-group-ids "$SECURITY_GROUP" \
    --instance-initiated-shutdown-behavior terminate --metadata-options HttpTokens=required \
    --block-device-mappings "DeviceName=/dev/sda1,Ebs={VolumeSize=${DISK_GB:-200},VolumeType=gp3,DeleteOnTermination=true}" \
    --tag-specifications "ResourceType=instance,Tags=[$tags]" "ResourceType=volume,Tags=[$tags]" \
    --user-data "file://$user_data" --query 'Instances[0].InstanceId' --output text "${market[@]}" "${dry[@]}"
done
echo "$count nodes of $type asked for as '$run'; take them down with: RUN=$run $here/teardown.sh" >&2
