#!/usr/bin/env bash
# Start N nodes, each for one partition of a run; a node deletes itself when its partition is done.
#   cluster/setup_workers.sh [--cloud ec2|gcp] N [INDEX...]
# With INDEX it starts only these partitions of N, for example after a spot node was reclaimed; they are resumed.
# It needs the cloud's command (aws, gcloud) with the right to start machines, and in the environment:
#   SOURCE   git URL of this repository          SECRETS  s3://… or gs://…, the prefix of the file `environment`
#   on EC2   AMI (Ubuntu or Debian with NVIDIA's driver), SECURITY_GROUP (no inbound rule needed), INSTANCE_PROFILE
#   on GCP   IMAGE (projects/…, Ubuntu with NVIDIA's driver), ZONE, SUBNET, SERVICE_ACCOUNT
# The role of the profile, or the service account, reads SECRETS and the source and writes the output. On GCP it also
# needs the right to delete instances, so that a finished node deletes its disk.
# Optional: INSTANCE_TYPE (g5.4xlarge, g2-standard-16), RUN (audiopipe), SPOT=0 for on-demand, DISK_GB (200),
# MAX_HOURS (36), DRY_RUN=1 to print the commands and start nothing.
# The cost per hour is N times the price of INSTANCE_TYPE: run `audiopipe estimate --profile ec2 --nodes N` first.
set -euo pipefail
cloud=ec2
if [ "${1:-}" = --cloud ]; then
  cloud=${2:?usage: setup_workers.sh [--cloud ec2|gcp] N [INDEX...]}
  shift 2
fi
count=${1:?usage: setup_workers.sh [--cloud ec2|gcp] N [INDEX...]}
shift
run=${RUN:-audiopipe}
minutes=$((${MAX_HOURS:-36} * 60))
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
started=()

fail() { echo "setup_workers: $*" >&2; exit 2; }

# Fill in `cloud-init.yaml` for one partition. Quoted replacements are literal: `sed` would act on & and | in them.
user_data() {
  local text
  text=$(<"$here/cloud-init.yaml")
  text=${text//@INDEX@/"$1"}
  text=${text//@COUNT@/"$count"}
  text=${text//@MAX_MINUTES@/"$minutes"}
  text=${text//@SECRETS@/"${SECRETS%/}"}
  text=${text//@SOURCE@/"$SOURCE"}
  printf '%s\n' "$text" >"$user_data_file"
}

# Refuse an address with a key, which every process of the node could read in its user data, and characters with which
# a shell would not take it literally. The message does not repeat the address.
check_address() {
  local authority=${2#*://}
  authority=${authority%%/*}
  [[ ! $2 =~ [^A-Za-z0-9._~:/@%+=,\&\|?#-] ]] || fail "$1 has a character that is not allowed in an address"
  case "$2" in
    ssh://*@*) [[ $authority != *:*@* ]] || fail "$1 contains a password: use an SSH key of the node's image" ;;
    *://*@*) fail "$1 contains a user name or a token: use an address that needs none, or the role of the node" ;;
  esac
  [[ ! ${2,,} =~ [?\&]([a-z_-]*token|sig|[a-z-]*signature|key|password|secret)= ]] || fail "$1 contains a token or a signature"
}

start_ec2() {
  local market=() tags="{Key=Name,Value=$run-$1},{Key=audiopipe-run,Value=$run},{Key=audiopipe-partition,Value=$1}"
  if [ "${SPOT:-1}" = 1 ]; then
    market=(--instance-market-options '{"MarketType":"spot","SpotOptions":{"SpotInstanceType":"one-time"}}')
  fi
  local filters=("Name=tag:audiopipe-run,Values=$run" "Name=tag:audiopipe-partition,Values=$1")
  local query='Reservations[].Instances[].InstanceId' existing
  filters+=("Name=instance-state-name,Values=pending,running")
  existing=$(aws ec2 describe-instances --filters "${filters[@]}" --query "$query" --output text)
  if [ -n "$existing" ]; then # GCP refuses a second machine of the same name, but EC2 would start it
    echo "partition $1 of '$run' already runs on $existing" >&2
    return
  fi
  "${dry_run[@]}" aws ec2 run-instances --count 1 --image-id "$AMI" --instance-type "${INSTANCE_TYPE:-g5.4xlarge}" \
    --iam-instance-profile "Name=$INSTANCE_PROFILE" --security-group-ids "$SECURITY_GROUP" \
    --instance-initiated-shutdown-behavior terminate --metadata-options HttpTokens=required \
    --block-device-mappings "DeviceName=/dev/sda1,Ebs={VolumeSize=${DISK_GB:-200},VolumeType=gp3,DeleteOnTermination=true}" \
    --tag-specifications "ResourceType=instance,Tags=[$tags]" "ResourceType=volume,Tags=[$tags]" \
    --user-data "file://$user_data_file" --query 'Instances[0].InstanceId' --output text "${market[@]}"
}

start_gcp() {
  local model=STANDARD
  if [ "${SPOT:-1}" = 1 ]; then
    model=SPOT
  fi
  "${dry_run[@]}" gcloud compute instances create "$run-$1" --zone "$ZONE" --image "$IMAGE" --subnet "$SUBNET" \
    --machine-type "${INSTANCE_TYPE:-g2-standard-16}" --maintenance-policy TERMINATE --no-restart-on-failure \
    --provisioning-model "$model" --instance-termination-action DELETE --max-run-duration "${minutes}m" \
    --boot-disk-size "${DISK_GB:-200}GB" --boot-disk-auto-delete --labels "audiopipe-run=$run,audiopipe-partition=$1" \
    --service-account "$SERVICE_ACCOUNT" --scopes cloud-platform \
    --metadata-from-file "user-data=$user_data_file" --format 'value(name)'
}

finish() {
  rm -f "$user_data_file"
  echo "requested ${#started[@]} of $total nodes of '$run'; they cost money until they are done, or until you run:" >&2
  echo "  RUN=$run $here/teardown.sh --cloud $cloud" >&2
}

[[ $count =~ ^[1-9][0-9]*$ ]] || fail "'$count' is not a number of nodes"
[[ $run =~ ^[a-z][a-z0-9-]{0,50}$ ]] || fail "RUN='$run' must be small letters, digits and hyphens, after a letter"
: "${SECRETS:?}" "${SOURCE:?}"
check_address SECRETS "$SECRETS"
check_address SOURCE "$SOURCE"
case "$cloud" in
  ec2) : "${AMI:?}" "${INSTANCE_PROFILE:?}" "${SECURITY_GROUP:?}" ;;
  gcp) : "${IMAGE:?}" "${ZONE:?}" "${SUBNET:?}" "${SERVICE_ACCOUNT:?}" ;;
  *) fail "unknown cloud '$cloud': use ec2 or gcp" ;;
esac
[ "$#" -gt 0 ] || mapfile -t all < <(seq 0 $((count - 1)))
[ "$#" -gt 0 ] || set -- "${all[@]}"
for index in "$@"; do
  [[ $index =~ ^[0-9]+$ ]] && [ "$index" -lt "$count" ] || fail "there is no partition '$index' of $count"
done

dry_run=()
[ "${DRY_RUN:-0}" = 0 ] || dry_run=(echo would run:)
user_data_file=$(mktemp)
trap finish EXIT
total=$#
for index in "$@"; do
  user_data "$index"
  "start_$cloud" "$index"
  started+=("$index")
done
