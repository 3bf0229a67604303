# shellcheck shell=bash
# Trains the paper's small or large model in two stages, recognition, then recognition and
# translation, and averages the last checkpoints of each: SAVE_DIR/asr.pt and SAVE_DIR/model.pt.
#
#   bash examples/small/train.sh DATA SAVE_DIR [FLAGS OF FAIRSEQ-TRAIN]
#   bash examples/large/train.sh DATA SAVE_DIR [FLAGS OF FAIRSEQ-TRAIN]
#
# Environment variables (and their defaults):
#   TRAIN_ASR (train_asr), VALID_ASR (dev_asr)  manifests in DATA for the first stage: names without
#                                               .tsv, comma-separated
#   TRAIN_ST (train_st), VALID_ST (dev_st)      the same for the second
#   GPUS (16)     GPUs of all nodes; --update-freq follows, so the batch stays the same
#   AVERAGE (25)  checkpoints to keep and to average
#   LAUNCH ()     command that starts fairseq-train, for example srun
#
# Run again, it goes on where it was. Flags given here win over those of the recipe, in both stages.

# shellcheck source=examples/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

# two_stages ARCHITECTURE BATCHES FLAGS BATCHES FLAGS "$@": of either stage the batches of one update
# (--update-freq times GPUs) and its own flags, as one string.
two_stages() {
    local arch="$1" asr_flags st_flags asr_update_freq st_update_freq
    local asr_batches="$2" st_batches="$4"
    read -ra asr_flags <<< "$3"
    read -ra st_flags <<< "$5"
    shift 5
    TRAIN_ASR="${TRAIN_ASR:-train_asr}" VALID_ASR="${VALID_ASR:-dev_asr}"
    TRAIN_ST="${TRAIN_ST:-train_st}" VALID_ST="${VALID_ST:-dev_st}"
    GPUS="${GPUS:-16}" AVERAGE="${AVERAGE:-25}"
    expect 'DATA SAVE_DIR' fairseq-train "$@"
    DATA="$1" SAVE_DIR="$2"
    shift 2
    expect_manifests "$DATA" "$TRAIN_ASR" "$VALID_ASR" "$TRAIN_ST" "$VALID_ST"
    expect_numbers GPUS AVERAGE
    asr_update_freq="$(per_gpu "$asr_batches")"
    st_update_freq="$(per_gpu "$st_batches")"

    stage asr "$TRAIN_ASR" "$VALID_ASR" --task speech_to_text_ctc --arch "$arch" \
        --update-freq "$asr_update_freq" --max-update 1000000 "${asr_flags[@]}" "$@"
    stage model "$TRAIN_ST" "$VALID_ST" --task speech_to_text_ctc_asr_st --arch "$arch" \
        --p-sampling-asr 0.5 --finetune-from-model "$SAVE_DIR/asr.pt" \
        --update-freq "$st_update_freq" --max-update 1000000 "${st_flags[@]}" "$@"
}
