#!/usr/bin/env bash
# Train on a GPU machine that has JAX, NumPy, OpenCV and safetensors but reaches no package index, for a limited time.
#
#   benchmarks/gpu_training.sh CONFIG FOLDER MINUTES [WHEELS]
#
# WHEELS is a folder with the wheels of keras, optree and namex. Each call goes on from what FOLDER holds; at the end of the
# time the training writes a checkpoint and leaves. What is to be brought home is put into FOLDER/parts in pieces of 15 MiB,
# the best weights first; `cat FOLDER/parts/last.* | tar x` restores the run.
#
# dwarf_lite_v2: features.yaml first, whose teacher needs torch unless its features are cached already, then lite_v2.yaml, then
# lite_v2_finetune.yaml; each in a folder of its own.
set -euo pipefail
config=$1 folder=$2 minutes=$3 wheels=${4:-wheels}

packages=$(mktemp -d)
python3 -m pip install --quiet --no-index --no-deps --target "$packages" "$wheels"/*.whl
export PYTHONPATH="$packages:$PWD" KERAS_BACKEND=jax PYTHONUNBUFFERED=1
export JAX_COMPILATION_CACHE_DIR="$folder/compiled"

timeout --signal=TERM --kill-after=60 "${minutes}m" python3 -c \
    'import sys; from dwarf_ros.cli import main; sys.exit(main())' \
    train "$config" --out "$folder/run" --resume || [ $? -eq 124 ]

rm -rf "$folder/parts" && mkdir -p "$folder/parts"
for file in best.safetensors log.jsonl; do
    if [ -f "$folder/run/$file" ]; then cp "$folder/run/$file" "$folder/parts/"; fi
done
tar c -C "$folder" run/config.yaml run/log.jsonl run/checkpoints | split -b 15m - "$folder/parts/last."
