#!/usr/bin/env bash
# Run one stage inside a batch job: hand the job's signals on, and queue the job again if, and only if, SLURM warned it
# by USR1 and the stage saved something (exit 75), or has the time of this start ahead of it still. A stage that has used
# its time up and saved nothing would do so each time. The scripts beside this one end in
# `exec bash stage.sh STAGE OPTIONS`.
warned="" ended="" stage=""
trap 'warned=yes; kill -USR1 $stage 2>/dev/null' USR1
trap 'ended=yes; kill -TERM $stage 2>/dev/null' TERM
# A resumed stage has the bits of an uninterrupted one only at the same number of threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
here=$(mktemp -d) || exit
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
says() { scontrol show job "$job" | grep -q "$1"; }
early() { # Whether more than ten minutes are left, so that it wasn't the time limit that the job was warned of.
  local end
  end=$(scontrol show job "$job" | sed -n 's/.*EndTime=\([^ ]*\).*/\1/p' | head -n 1)
  [ "$end" = Unknown ] || { end=$(date -d "$end" +%s) && [ $((end - $(date +%s))) -gt 600 ]; }
}
case $code in
  75) ;; # Saved.
  76 | $((128 + $(kill -l USR1))) | $((128 + $(kill -l TERM)))) # Stopped before anything was saved.
    if [ -n "$warned" ] && ! early; then
      echo "stage.sh: $1 saved nothing in the time of this job, which isn't queued again; give it more (--time)" >&2
      warned=""
    fi
    ;;
  *) exit "$code" ;;
esac
if [ -z "$ended" ]; then
  again=$warned
elif says Reason=TimeLimit; then
  again=$warned # It was still saving.
elif [ "${SLURM_RESTART_COUNT:-0}" != 0 ] && [ "$SECONDS" -lt 60 ] && says JobState=RUNNING; then
  again=yes # Meant for the earlier start of this job, whose node was down and is back.
else
  again="" # Canceled; or preempted, and queued again by SLURM itself.
fi
if [ -n "$again" ]; then
  scontrol requeue "$job" || true
fi
exit "$code"
