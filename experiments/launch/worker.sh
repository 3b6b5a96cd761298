#!/usr/bin/env bash
# In a pod: the program, with SIGTERM passed on, and an error if it is not finished.
#
# After SIGTERM the program saves and leaves with status 0, which Kubernetes would take
# for the end of the run.
set -euo pipefail

if [[ $# -lt 2 || "$1" == -h || "$1" == --help ]]; then
  echo "usage: worker.sh RUNS NAME [FLAG OF experiments.train ...]"
  exit 2
fi
runs="$1" name="$2"
shift 2

# In the background, because a shell that waits for a program in front hears no signal.
"${PYTHON:-python}" -m experiments.train --runs "$runs" --name "$name" "$@" &
program=$!
trap 'kill -TERM "$program"' TERM INT

# `wait` ends when a signal comes as well as when the program does.
status=0
wait "$program" || status=$?
while kill -0 "$program" 2>/dev/null; do
  status=0
  wait "$program" || status=$?
done

# results.json is the last thing that a run writes.
if [[ "$status" == 0 && ! -e "$runs/$name/results.json" ]]; then
  echo "$name is not finished: start it again" >&2
  exit 1
fi
exit "$status"
