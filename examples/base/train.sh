#!/usr/bin/env bash
# Trains the paper's base model, for recognition or translation, and averages its last checkpoints
# into SAVE_DIR/model.pt.
#
#   bash examples/base/train.sh DATA SAVE_DIR [FLAGS OF FAIRSEQ-TRAIN]
#
# Environment variables (and their defaults):
#   TRAIN (train), VALID (dev)  manifests in DATA: names without .tsv, comma-separated
#   GPUS (4)     GPUs of all nodes; --update-freq follows, so the batch stays the same
#   AVERAGE (7)  checkpoints to keep and to average
#   LAUNCH ()    command that starts fairseq-train, for example srun
#
# Run again, it goes on where it was. Flags given here win over those of the recipe.
set -euo pipefail
# shellcheck source=examples/recipe.sh
source "$(dirname "$0")/../recipe.sh"
TRAIN="${TRAIN:-train}" VALID="${VALID:-dev}" GPUS="${GPUS:-4}" AVERAGE="${AVERAGE:-7}"
expect 'DATA SAVE_DIR' fairseq-train "$@"
DATA="$1" SAVE_DIR="$2"
shift 2
expect_manifests "$DATA" "$TRAIN" "$VALID"
expect_numbers GPUS AVERAGE
update_freq="$(per_gpu 8)"

stage model "$TRAIN" "$VALID" --task speech_to_text_ctc --arch conformer_joint_ctc_base \
    --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 25000 \
    --max-tokens 40000 --update-freq "$update_freq" --max-update 250000 "$@"
