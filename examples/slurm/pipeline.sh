#!/usr/bin/env bash
# Submit the pipeline as a chain of SLURM jobs:  bash examples/slurm/pipeline.sh /scratch/me/my-run
# No job asks for a GPU, an account or a partition. sbatch reads what you need from the environment, for all jobs:
# SBATCH_GPUS=1, SBATCH_ACCOUNT, SBATCH_PARTITION.
# Two minutes before its time limit a job signals its stage; a stage that saved and exited 75 is queued again, and the
# jobs behind it go on waiting.
set -euo pipefail
export CAUSALPRUNE_RUN=${1:?name the run directory}
CAUSALPRUNE_SLURM=$(cd "$(dirname "$0")" && pwd)
export CAUSALPRUNE_SLURM

previous=""
submit() { # submit STAGE [OPTION ...]
  local stage=$1
  shift
  local options=(--parsable --export ALL)
  [ -z "$previous" ] || options+=(--dependency "afterok:$previous" --kill-on-invalid-dep yes)
  previous=$(sbatch "${options[@]}" "$CAUSALPRUNE_SLURM/$stage.sbatch" "$@")
  echo "$stage: job $previous"
}

submit pretrain --dataset digits
submit record --epochs 5
submit fit-gamma
submit apply-mask --sparsity 0.9
submit posttrain
submit evaluate
