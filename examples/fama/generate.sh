#!/usr/bin/env bash
# Decodes with a published FAMA checkpoint, saves cross-attention, explains every token and correlates
# the two.
#
#   bash examples/fama/generate.sh DATA SPLIT CHECKPOINT OUT [FLAGS OF FAIRSEQ-GENERATE]
#     DATA        folder with config.yaml, the vocabulary and SPLIT.tsv
#     SPLIT       manifest in DATA: a name without .tsv
#     CHECKPOINT  of FAMA-small or FAMA-medium
#     OUT         attribution store to write
#
# Environment variable (and its default):
#   LAUNCH ()  command that starts fairseq-generate in several processes, for example srun
#
# Run again, it goes on where it was. Flags given here win over those of the recipe.
set -euo pipefail
# shellcheck source=examples/recipe.sh
source "$(dirname "$0")/../recipe.sh"
expect 'DATA SPLIT CHECKPOINT OUT' fairseq-generate "$@"
DATA="$1" SPLIT="$2" CHECKPOINT="$3" OUT="$4"
shift 4
expect_manifests "$DATA" "$SPLIT"

"${LAUNCHER[@]}" fairseq-generate "$DATA" --user-dir "$USER_DIR" --config-yaml config.yaml \
    --gen-subset "$SPLIT" --path "$CHECKPOINT" --task speech_to_text_ctc \
    --criterion ctc_multi_loss --underlying-criterion label_smoothed_cross_entropy \
    --beam 5 --prefix-size 1 --no-repeat-ngram-size 5 --unkpen 10000 --scoring sacrebleu \
    --max-tokens 40000 \
    --max-source-positions 12000 --max-target-positions 4000 \
    --model-overrides "{'max_source_positions':12000,'max_target_positions':4000,'batch_unsafe_relative_shift':False}" \
    --attribution-dir "$OUT" --save-cross-attention --explain input encoder --num-masks 20000 "$@"
fbk-xattn correlate "$OUT"
