#!/bin/bash
# Runs one attempt on a cluster: bash autoresearch-attempts/ATTEMPT/start.sh ATTEMPT SECONDS IDLE_SECONDS
# from the directory that the task's set-up ran in. What it runs lies beside this file, and nowhere else: jobs that
# wait on a cluster share its files.
set -u
attempt=$1 seconds=$2 idle=$3
work=$PWD rank=${SKYPILOT_NODE_RANK:-0}
cd "autoresearch-attempts/$attempt" || exit 1

# One at a time: jobs that need no accelerator SkyPilot itself has run beside each other.
if [ "$rank" = 0 ] && [ "${SKYPILOT_NUM_GPUS_PER_NODE:-0}" = 0 ] && command -v flock >/dev/null; then
    exec 9> ../.one-at-a-time && flock 9
fi

# The same attempt may have been submitted twice, where an answer was lost. It runs once, and its result is said again.
mkdir "begun-$rank" 2>/dev/null || { cat result-line 2>/dev/null || echo "AUTORESEARCH_TWICE"; exit 0; }
# Whoever follows hears that it has begun: it may print nothing of its own before it ends.
[ "$rank" != 0 ] || echo "AUTORESEARCH_PROGRESS {}"

bash keep.sh $((seconds + idle)) &

mkdir "work-$rank" && cd "work-$rank" && mkdir bundle tmp && tar -xf ../bundle.tar -C bundle || exit 1
limited() { timeout --signal=TERM --kill-after=30 "$seconds" "$@"; }
export UV_PROJECT_ENVIRONMENT=$work/.venv PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TMPDIR=$PWD/tmp
if [ "$rank" = 0 ]; then
    python=$work/.venv/bin/python
    [ -x "$python" ] || python=$(command -v python3)
    cp -r ../harness harness
    job=$(cat ../job.json)
    rm -f ../job.json
    limited "$python" -m harness <<< "$job"
else
    # The other machines of an experiment of several run what the task says, and only the first is listened to.
    cd bundle && limited bash ../../run.sh
fi
ended=$?
wait # for keep.sh, which the next one's must find done
cd "$work/autoresearch-attempts/$attempt" || exit $ended
[ ! -s "work-$rank/result.json" ] || echo "AUTORESEARCH $(head -c 1000000 "work-$rank/result.json")" > result-line
rm -rf "work-$rank"
[ "$rank" = 0 ] && rm -rf harness
exit $ended
