#!/usr/bin/env bash
# One training run on the TPU slices of a GKE cluster, through xpk.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: xpk.sh [FLAG OF experiments.train ...]

Variables (with the defaults in brackets):
  CLUSTER   the GKE cluster, made with `xpk cluster create`; required
  WORKLOAD  name of the job and of the run [train]
  TPU_TYPE  type of a slice [v5litepod-16]
  SLICES    how many slices [1]
  RUNS      a folder that every pod mounts, made with `xpk storage attach`; required
  IMAGE     a docker image with Python 3.11 or later [python:3.12]
  GRACE     seconds that a pod has after SIGTERM [60]
  RESTARTS  how often the job may be started again [10]
HELP
}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then usage && exit 0; fi
: "${CLUSTER:?is required: the GKE cluster}"
: "${RUNS:?is required: a folder that every pod mounts}"
WORKLOAD="${WORKLOAD:-train}"
TPU_TYPE="${TPU_TYPE:-v5litepod-16}"
SLICES="${SLICES:-1}"
IMAGE="${IMAGE:-python:3.12}"
GRACE="${GRACE:-60}"
RESTARTS="${RESTARTS:-10}"

# What every pod runs, from the copy of this checkout in its image. The program gets ten
# seconds less than the pod, so that it is the one who ends.
command="pip install 'jax[tpu]' '.[experiments]' && exec bash experiments/launch/worker.sh"
command+="$(printf ' %q' "$RUNS" "$WORKLOAD" --grace "$((GRACE - 10))" "$@")"

# --base-docker-image and --script-dir: xpk puts this checkout into the image, and pushes
# it. --max-restarts and --restart-on-user-code-failure: a pod that ends with an error,
# as worker.sh does when the run is not finished, has all of them started again.
xpk workload create \
  --cluster "$CLUSTER" \
  --workload "$WORKLOAD" \
  --tpu-type "$TPU_TYPE" \
  --num-slices "$SLICES" \
  --base-docker-image "$IMAGE" \
  --script-dir "$(cd "$(dirname "$0")/../.." && pwd)" \
  --termination-grace-period-seconds "$GRACE" \
  --max-restarts "$RESTARTS" \
  --restart-on-user-code-failure \
  --command "$command"
