#!/usr/bin/env bash
# Run one stage inside a batch job: hand the job's signals on, and queue the job again if, and only if, the stage saved
# its state and exited 75. The scripts beside this one end in `exec bash stage.sh STAGE OPTIONS`.
trap 'kill -USR1 "$stage" 2>/dev/null' USR1
trap 'kill -TERM "$stage" 2>/dev/null' TERM
# A resumed stage has the bits of an uninterrupted one only at the same number of threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
causalprune "$@" &
stage=$!
# wait returns early, with another code, when a signal arrives; the stage is then still saving.
while kill -0 "$stage" 2>/dev/null; do wait "$stage"; done
wait "$stage"
code=$?
if [ "$code" = 75 ]; then
  # Fails where a preempting scheduler has queued the job again already.
  scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$code"
