#!/bin/bash
# Keeps the cluster for so many seconds more, and no longer: bash keep.sh SECONDS
# For Slurm, where SkyPilot's autostop needs Pyxis, and where only an administrator may prolong a job: a job that begins
# then, and ends the allocation that this runs in, takes the place of the one before. It needs no process on the
# cluster, which may hang. Elsewhere it does nothing.
set -u
[ -n "${SLURM_JOB_ID:-}" ] && command -v sbatch >/dev/null || exit 0
[ "${SLURM_PROCID:-0}" = 0 ] || exit 0
before=$HOME/.autoresearch-deadline
now=$(sbatch --parsable --begin="now+$1" --job-name=autoresearch-deadline --partition="$SLURM_JOB_PARTITION" \
    --ntasks=1 --cpus-per-task=1 --mem=16M --time=1 --output=/dev/null --export=PATH,SLURM_CONF \
    --wrap="scancel --full $SLURM_JOB_ID") || {
    echo "this Slurm takes no job from its nodes: nothing ends this allocation but its own time limit"
    exit 1
}
[ ! -s "$before" ] || scancel --quiet "$(cat "$before")"
echo "${now%%;*}" > "$before"
