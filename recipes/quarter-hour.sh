#!/usr/bin/env bash
# A quarter of an hour of a lent GPU: check the scan there, then train what is next.
#
#   recipes/quarter-hour.sh pack FOLDER TAR [RUN]   on the machine at home: pictures and a checkpoint into FOLDER
#   OUT=results recipes/quarter-hour.sh run FOLDER  on the machine with the GPU
#
# `pack` takes about SHARD_MB of pictures out of a tar, fairly by class, and the newest checkpoint of RUN (a folder of
# `pmavae train`) without its optimizers. `run` tests and times the scan, trains for MINUTES, and leaves at most eight
# files in OUT: weights, log, settings, pictures, what the tests said. Rehearse it on a CPU with
# MINUTES=1 SETTINGS="--set phases.0.batch=2 --set compile=off".
#
# What is next: PRESET and RECIPE below follow the queue of trainings.
set -euo pipefail
cd "$(dirname "$0")/.."

PRESET=${PRESET:-tiny}
RECIPE=${RECIPE:-recipes/codec-gpu.toml}
MINUTES=${MINUTES:-9}
SHARD_MB=${SHARD_MB:-12}
SETTINGS=${SETTINGS:-}
PYTHON=${PYTHON:-python3}

pack() {
    local folder=$1 tar=$2 run=${3:-} newest
    mkdir -p "$folder"
    "$PYTHON" - "$tar" "$folder/pictures.tar" "$SHARD_MB" <<'PY'
import sys, tarfile

source, target, megabytes = sys.argv[1], sys.argv[2], float(sys.argv[3])
with tarfile.open(source) as pictures, tarfile.open(target, "w") as kept:
    # Names begin with the class; of each, every so many pictures, so that all keep their share.
    members = sorted((m for m in pictures if m.isfile()), key=lambda m: m.name)
    step = max(1.0, sum(m.size for m in members) / (megabytes * 1e6))
    for number in range(int(len(members) / step)):
        member = members[int(number * step)]
        kept.addfile(member, pictures.extractfile(member))
PY
    cp "$(dirname "$tar")/manifest.csv" "$folder/" 2>/dev/null || true
    if [ -n "$run" ]; then
        newest=$(find "$run/checkpoints" -name model.safetensors | sort | tail -n 1)
        "$PYTHON" -c 'import sys; from pmavae import PMAVAE; PMAVAE.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])' \
            "$newest" "$folder/start"
    fi
    du -sh "$folder"
}

run() {
    local folder=$1 start=$PRESET work file
    : "${OUT:?names the folder for the results}"
    work=$(mktemp -d)
    export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
    mkdir -p "$OUT"
    if [ -d "$folder/start" ]; then start=$folder/start; fi
    {
        nvidia-smi || echo "no GPU here"
        timeout 60 "$PYTHON" -m pytest -q -n 0 tests/scan/test_scan_cuda.py || echo "the tests of the scan did not pass"
        timeout 60 "$PYTHON" benchmarks/scan.py --device cuda --lanes 65536 || echo "the scan was not timed"
    } >"$OUT/scan.txt" 2>&1
    # shellcheck disable=SC2086 # SETTINGS are words
    "$PYTHON" -m pmavae_cli train --preset "$PRESET" --config "$RECIPE" --init-from "$start" \
        --data "$folder/pictures.tar" --out "$work/run" --time-limit "${MINUTES}m" --save-every 2m --keep 1 \
        $SETTINGS 2>&1 | tee "$OUT/train.txt"
    for file in model.safetensors config.json log.csv contact-sheet.png; do
        cp "$work/run/$file" "$OUT/"
    done
}

case "${1:-}" in
pack) pack "${@:2}" ;;
run) run "${@:2}" ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
