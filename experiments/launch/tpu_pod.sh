#!/usr/bin/env bash
# One training run on all hosts of a TPU pod slice, over gcloud's ssh.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: tpu_pod.sh create|setup|train|stop|delete [FLAG OF experiments.train ...]

  create   rent the slice
  setup    copy this checkout to every host, install it there, mount the shared folder
  train    run the program on every host; the flags are passed on
  stop     SIGTERM to all: they save the step they are at and leave
  delete   give the slice back

Variables (with the defaults in brackets):
  TPU          name of the slice [jaxtricks]
  ZONE         its zone; required
  ACCELERATOR  its type [v5litepod-16]
  RUNTIME      its system image [v2-alpha-tpuv5-lite]
  SPOT         1: cheaper, and may be taken back at any time [0]
  NFS          HOST:/SHARE, a Filestore that all hosts mount; required by setup
  RUNS         where they mount it [/mnt/runs]
HELP
}

TPU="${TPU:-jaxtricks}"
ACCELERATOR="${ACCELERATOR:-v5litepod-16}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT:-0}"
RUNS="${RUNS:-/mnt/runs}"

# Runs one command line on every host of the slice at once.
everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

case "${1:---help}" in
  -h | --help) usage && exit 0 ;;
  create | setup | train | stop | delete) ;;
  *) usage >&2 && exit 2 ;;
esac
: "${ZONE:?is required: the zone of the slice, as in ZONE=us-west4-a}"
what="$1"
shift

case "$what" in
  create)
    # The VMs of the slice, one for every 4 or 8 chips, billed from now on.
    spot=""
    if [[ "$SPOT" == 1 ]]; then spot=--spot; fi
    gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" \
      --accelerator-type="$ACCELERATOR" --version="$RUNTIME" ${spot:+"$spot"}
    ;;
  setup)
    : "${NFS:?is required: HOST:/SHARE of a Filestore in the network of the slice}"
    # What is committed, as one file, to the home folder of every host.
    archive="$(mktemp -d)/jaxtricks.tar.gz"
    git -C "$(dirname "$0")/../.." archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:" --zone="$ZONE" --worker=all
    # Python 3.11 beside the image's older one, and the folder that all hosts share.
    everywhere "sudo apt-get update && sudo apt-get install -y python3.11-venv nfs-common"
    everywhere "sudo mkdir -p $(printf %q "$RUNS") && (mountpoint -q $(printf %q "$RUNS") || sudo mount -t nfs $(printf %q "$NFS") $(printf %q "$RUNS")) && sudo chmod a+rwx $(printf %q "$RUNS")"
    # jax for TPUs, and this package with what the training program needs.
    everywhere "mkdir -p jaxtricks && tar -xzf jaxtricks.tar.gz -C jaxtricks && python3.11 -m venv venv && venv/bin/pip install 'jax[tpu]' './jaxtricks[experiments]'"
    ;;
  train)
    # The same command on every host: jax finds the others through the metadata server.
    everywhere "cd jaxtricks && exec ../venv/bin/python -m experiments.train$(printf ' %q' --runs "$RUNS" "$@")"
    ;;
  stop)
    # The brackets keep the pattern from matching the shell that carries it.
    everywhere "pkill -TERM -f '[e]xperiments.train'"
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" --quiet
    ;;
esac
