#!/usr/bin/env bash
# Trains a larger model of the prompts in two stages, recognition, then recognition and
# translation, and averages the last checkpoints of each: SAVE_DIR/asr.pt and SAVE_DIR/model.pt.
#
#   bash examples/prompts/train/train.sh DATA SAVE_DIR [FLAGS OF FAIRSEQ-TRAIN]
#
# Environment variables (and their defaults):
#   TRAIN             manifests in DATA: names without .tsv, comma-separated (default: those of
#                     build.py, real, telephone and general speech, and spliced if it is there)
#   VALID             the same for validation (default: the prompts of dev in all four tasks)
#   ASR_UPDATES, ST_UPDATES (4000, 8000)  updates of the stages
#   GPUS (1)          GPUs
#   AVERAGE (10)      checkpoints to keep and to average
#   WORKERS (12)      processes that load data
#
# What it prints is also in SAVE_DIR/asr.log and model.log (curves.py draws them). Run again, it goes
# on where it was. Flags given here win over those of the recipe, in both stages.
set -euo pipefail
# shellcheck source=examples/recipe.sh
source "$(dirname "$0")/../../recipe.sh"
all=train_real_st_en_it,train_real_st_it_en,train_real_asr_en,train_real_asr_it
for part in telephone general; do all+=",train_${part}_st_en_it,train_${part}_st_it_en"; done
for task in asr_en asr_it; do
    [ ! -f "${1:-}/train_spliced_$task.tsv" ] || all+=",train_spliced_$task"
done
TRAIN="${TRAIN:-$all}" VALID="${VALID:-dev_asr_en,dev_asr_it,dev_st_en_it,dev_st_it_en}"
ASR_UPDATES="${ASR_UPDATES:-4000}" ST_UPDATES="${ST_UPDATES:-8000}"
GPUS="${GPUS:-1}" AVERAGE="${AVERAGE:-10}" WORKERS="${WORKERS:-12}"
expect 'DATA SAVE_DIR' fairseq-train "$@"
DATA="$1" SAVE_DIR="$2"
shift 2
expect_manifests "$DATA" "$TRAIN" "$VALID"
expect_numbers ASR_UPDATES ST_UPDATES GPUS AVERAGE WORKERS

model=(
    --task speech_to_text_ctc_asr_st --arch conformer_joint_ctc
    --encoder-layers 6 --ctc-encoder-layer 4 --encoder-embed-dim 256 --encoder-attention-heads 4
    --feed-forward-expansion-factor 2 --conv-channels 384 --conformer-conv-kernel-size 31
    --decoder-layers 4 --decoder-embed-dim 256 --decoder-ffn-embed-dim 768
    --decoder-attention-heads 4 --share-decoder-input-output-embed
    --dropout 0.2 --conformer-feedforward-dropout 0.1 --conformer-attention-dropout 0.1
    --conformer-conv-dropout 0.1 --subword-regularization 0.2
    --max-tokens 150000 --bf16 --num-workers "$WORKERS"
    --validate-interval-updates 500 --log-format json --log-interval 100 --seed 1
)

# logged NAME ...: a stage of recipe.sh that adds what it prints to SAVE_DIR/NAME.log. Not fairseq's
# --log-file: it opens the file once more in every epoch, and repeats each line as many times.
logged() {
    mkdir -p "$SAVE_DIR"
    stage "$@" | tee -a -i "$SAVE_DIR/$1.log"
}

# Recognition of everything, translated or not, with more weight on CTC, which teaches the encoder to
# listen before the decoder has learnt to guess.
logged asr "$TRAIN" "$VALID" "${model[@]}" --p-sampling-asr 1 \
    --ctc-weight 4 --primary-loss-weight 1 --auxiliary-loss-weight 1 \
    --lr 1.5e-3 --lr-scheduler inverse_sqrt --warmup-updates 500 \
    --max-update "$ASR_UPDATES" --save-interval-updates 200 "$@"
# Both, with a learning rate that goes to nothing, and still much of CTC.
logged model "$TRAIN" "$VALID" "${model[@]}" --p-sampling-asr 0.5 \
    --ctc-weight 3 --primary-loss-weight 3 --auxiliary-loss-weight 2 \
    --finetune-from-model "$SAVE_DIR/asr.pt" \
    --lr 1e-3 --lr-scheduler polynomial_decay --warmup-updates 200 --end-learning-rate 1e-5 \
    --total-num-update "$ST_UPDATES" \
    --max-update "$ST_UPDATES" --save-interval-updates 100 "$@"
