#!/usr/bin/env bash
# Run one stage inside a batch job: hand the job's signals on, and queue the job again if, and only if, SLURM warned it
# by USR1 and the stage saved its state. The scripts beside this one end in `exec bash stage.sh STAGE OPTIONS`.
warned="" ended="" stage=""
trap 'warned=yes; kill -USR1 $stage 2>/dev/null' USR1
trap 'ended=yes; kill -TERM $stage 2>/dev/null' TERM
# A resumed stage has the bits of an uninterrupted one only at the same number of threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
here=$(mktemp -d)
(
  # A signal during `wait` can cost bash the exit code, so the stage is in the foreground of a shell of its own.
  trap : USR1 TERM
  bash -c 'echo $$ > "$0"; exec causalprune "$@"' "$here/stage" "$@"
  echo $? > "$here/code"
) &
shell=$!
until [ -s "$here/stage" ]; do sleep 0.02; done
stage=$(<"$here/stage")
[ -z "$warned" ] || kill -USR1 "$stage" 2>/dev/null
# wait returns early when a signal arrives; the stage is then still saving.
while kill -0 "$shell" 2>/dev/null; do wait "$shell"; done
code=$(<"$here/code")
rm -r "$here"
# By its plain number the last task of an array would take all others along.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
saved() { # Or the warning came before the stage listened: nothing was lost.
  [ "$code" = 75 ] || [ "$code" = $((128 + $(kill -l USR1))) ]
}
goes_on() { # TERM is scancel, unless the stage was still saving at the time limit. Preemption queues it again itself.
  [ -z "$ended" ] || scontrol show job "$job" | grep -q Reason=TimeLimit
}
if [ -n "$warned" ] && saved && goes_on; then
  scontrol requeue "$job" || true
fi
exit "$code"
