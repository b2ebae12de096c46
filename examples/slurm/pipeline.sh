#!/usr/bin/env bash
# Submit the pipeline as a chain of SLURM jobs:  bash examples/slurm/pipeline.sh /scratch/me/my-run
# Each job signals its stage two minutes before the time limit; a stage that saved and exited 75 is queued again.
set -euo pipefail
export CAUSALPRUNE_RUN=${1:?name the run directory}
here=$(cd "$(dirname "$0")" && pwd)

previous=""
submit() { # submit NAME GPUS STAGE [OPTION ...]
  local name=$1 gpus=$2
  shift 2
  local options=(--parsable --job-name "causalprune-$name" --signal B:USR1@120 --requeue --export ALL)
  [ "$gpus" = 0 ] || options+=(--gpus "$gpus")
  [ -z "$previous" ] || options+=(--dependency "afterok:$previous")
  previous=$(sbatch "${options[@]}" "$here/stage.sbatch" "$@")
  echo "$name: job $previous"
}

submit pretrain 1 pretrain --dataset digits
submit record 1 record --epochs 5
submit fit 0 fit-gamma
submit mask 0 apply-mask --sparsity 0.9
submit posttrain 1 posttrain
submit evaluate 1 evaluate
