#!/usr/bin/env bash
# From nothing to the paper's correlation table on real speech: sets up, fetches telephone prompts in
# English and Italian, decodes and explains eight test utterances with a trained model, correlates
# cross-attention with saliency, draws pictures, and writes an interactive report.
#
#   bash examples/prompts/run.sh [--audio-dir DIR] [--work-dir DIR] [--num-masks N]
#                                [--model DIR | --train [--minutes M]]
#     --audio-dir DIR  folder with the four Debian packages unpacked, instead of fetching them
#     --work-dir DIR   where to put everything it makes (default: examples/prompts/work)
#     --num-masks N    occlusion masks for each utterance and target (default: 1000)
#     --model DIR      model, a folder of examples/prompts/train/ship.py (default: examples/prompts/model)
#     --train          train a small model on the CPU, and explain that
#     --minutes M      with --train: at most so long (default: 9)
#
# A second run skips what is done. Data, model and results are in the folder shipped of --work-dir,
# with --train in the folder trained.
set -euo pipefail
CALLER="$PWD"
cd "$(dirname "$0")/../.."
ROOT="$PWD"
WORK="$ROOT/examples/prompts/work"
PACKAGES=(asterisk-core-sounds-{en,it}-g722 asterisk-core-sounds-{en,it})
audio_dir="" num_masks=1000 way=shipped minutes="" model=""
while [ $# -gt 0 ]; do
    case "$1" in
        --audio-dir) audio_dir="${2:?--audio-dir expects a folder}"; shift 2 ;;
        --work-dir) WORK="${2:?--work-dir expects a folder}"; shift 2 ;;
        --num-masks) num_masks="${2:?--num-masks expects a number}"; shift 2 ;;
        --model) model="${2:?--model expects a folder}"; shift 2 ;;
        --train) way=trained; shift ;;
        --minutes) minutes="${2:?--minutes expects a number}"; shift 2 ;;
        -h | --help) sed -n '2,18s/^# \{0,1\}//p' "$ROOT/examples/prompts/run.sh"; exit 0 ;;
        *) echo "error: unknown argument $1; --help lists what is expected" >&2; exit 2 ;;
    esac
done
if [ -n "$minutes" ] && [ "$way" = shipped ]; then
    echo "error: --minutes $minutes: expected with --train only" >&2
    exit 2
fi
if [ -n "$model" ] && [ "$way" = trained ]; then
    echo "error: --model $model: expected without --train, which makes a model" >&2
    exit 2
fi
# Folders given are relative to where the user is.
from_caller() { [[ "$1" = /* ]] && echo "$1" || echo "$CALLER/$1"; }
WORK="$(from_caller "$WORK")"
[ -z "$model" ] || model="$(from_caller "$model")"
minutes="${minutes:-9}" model="${model:-examples/prompts/model}"
if [ -n "$audio_dir" ]; then
    audio_dir="$(from_caller "$audio_dir")"
    [ -d "$audio_dir" ] || { echo "error: --audio-dir $audio_dir: no such folder" >&2; exit 2; }
    audio_dir="$(cd "$audio_dir" && pwd)"
fi
mkdir -p "$WORK/$way"
WORK="$(cd "$WORK" && pwd)"
RUN="$WORK/$way"

step() { printf '\n== %s  [%s]\n' "$1" "$(date +%H:%M:%S)"; }

# Runs a command with its whole log in a file, and shows the lines that match a pattern meanwhile.
shown() {
    local log="$1" pattern="$2" code=0
    shift 2
    "$@" > "$log" 2>&1 &
    local job=$!
    tail --pid="$job" -s 0.2 -n +1 -f "$log" 2>/dev/null | grep --line-buffered -oE "$pattern" || true
    wait "$job" || code=$?
    if [ "$code" != 0 ]; then
        tail -n 5 "$log" >&2
        echo "error: failed with code $code; the whole log is $log" >&2
        exit "$code"
    fi
}

if [ "$way" = shipped ]; then
    step "model: joining its parts"
    parts=("$model"/model.pt.*)
    sum="$(cat "${parts[@]}" 2>/dev/null | sha256sum)" || true
    if [ "${sum%% *}  model.pt" != "$(cat "$model/SHA256SUMS" 2>/dev/null)" ]; then
        echo "error: ${parts[*]}: expected parts that join to the model of SHA256SUMS; one is" \
             "missing or differs" >&2
        exit 1
    fi
    if [ ! -f "$RUN/model.pt" ]; then
        cat "${parts[@]}" > "$RUN/model.pt.partial"
        mv "$RUN/model.pt.partial" "$RUN/model.pt"
    elif [ "$(sha256sum < "$RUN/model.pt")" != "$sum" ]; then
        echo "error: $RUN: is of another model; remove it, or give another --work-dir" >&2
        exit 1
    fi
    vocabulary=(--vocabulary "$model")
else
    vocabulary=(--vocabulary-size 200)
fi

step "speech: Debian's telephone prompts in English and Italian"
if [ -z "$audio_dir" ]; then
    audio_dir="$WORK/sounds"
    if [ ! -f "$audio_dir/.complete" ]; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            echo "error: no apt-get here; unpack the Debian packages ${PACKAGES[*]} into a folder" \
                 "and give it with --audio-dir" >&2
            exit 1
        fi
        rm -rf "$WORK/packages" "$audio_dir"
        mkdir -p "$WORK/packages" "$audio_dir"
        if ! (cd "$WORK/packages" && apt-get download "${PACKAGES[@]}"); then
            echo "error: apt-get cannot download ${PACKAGES[*]} (is 'apt-get update' needed?);" \
                 "or unpack them into a folder and give it with --audio-dir" >&2
            exit 1
        fi
        for package in "$WORK/packages"/*.deb; do dpkg-deb -x "$package" "$audio_dir"; done
        touch "$audio_dir/.complete"
    fi
fi

step "environment"
# shellcheck source=scripts/venv.sh
source scripts/venv.sh prompts
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

step "corpus: texts cleaned, audio decoded, split by sentence"
[ -f "$WORK/corpus/test_st_it_en.tsv" ] ||
    fbk-xattn prompts --audio-dir "$audio_dir" --output "$WORK/corpus"

step "features and vocabulary"
[ -f "$RUN/data/config.yaml" ] ||
    fbk-xattn prepare "$WORK/corpus" "$RUN/data" "${vocabulary[@]}"
awk -F'\t' 'NR == FNR { wanted[$1]; next } (FNR == 1 && !header++) || $1 in wanted' \
    examples/prompts/explained.txt "$RUN"/data/test_*.tsv > "$RUN/data/explained.tsv"

# One stage of training: folder, minutes since the first stage began, manifests, further flags.
# (fairseq counts the training time of the model that it goes on from.)
train() {
    local folder="$1" limit="$2" subsets="$3"
    shift 3
    # The paper's objective with more weight on CTC, which teaches so small a model to listen.
    shown "$folder.log" 'epoch [0-9]+:.* nll_loss=[0-9.]+' \
        fairseq-train "$RUN/data" --user-dir "$ROOT/fbk_xattn" \
        --task speech_to_text_ctc --train-subset "$subsets" --disable-validation \
        --arch conformer_joint_ctc --encoder-layers 4 --decoder-layers 2 --ctc-encoder-layer 3 \
        --encoder-embed-dim 128 --feed-forward-expansion-factor 2 --decoder-ffn-embed-dim 512 \
        --encoder-attention-heads 4 --decoder-attention-heads 4 --share-decoder-input-output-embed \
        --conv-channels 256 --conv-kernel-sizes 5,5,5 --conformer-conv-kernel-size 15 \
        --dropout 0.1 --conformer-feedforward-dropout 0 --conformer-attention-dropout 0 \
        --conformer-conv-dropout 0 --no-syncbatchnorm \
        --criterion ctc_multi_loss --underlying-criterion joint_cross_entropy_ctc \
        --label-smoothing 0.1 --ignore-prefix-size 1 --ctc-weight 3 --primary-loss-weight 2 \
        --auxiliary-loss-weight 1 \
        --optimizer adam --adam-betas '(0.9,0.98)' --weight-decay 0.001 --clip-norm 10 \
        --max-tokens 6000 --max-source-positions 3000 --skip-invalid-size-inputs-valid-test \
        --required-batch-size-multiple 1 --num-workers 1 --seed 1 --cpu \
        --stop-time-hours "$(awk "BEGIN { print ($limit) / 60 }")" \
        --save-dir "$folder" --no-epoch-checkpoints --save-interval-updates 50 \
        --keep-interval-updates 2 --log-format simple --log-interval 20 "$@"
    fbk-xattn average-checkpoints --inputs "$folder"/checkpoint*.pt --output "$folder.pt"
}
if [ "$way" = trained ] && [ ! -f "$RUN/asr.pt" ]; then
    step "training, stage 1: recognition (at most two thirds of $minutes minutes)"
    train "$RUN/asr" "$minutes * 0.66" train_asr_en,train_asr_it \
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 --warmup-init-lr 1e-5
fi
if [ "$way" = trained ] && [ ! -f "$RUN/model.pt" ]; then
    step "training, stage 2: recognition and translation (the other third)"
    train "$RUN/model" "$minutes" train_asr_en,train_asr_it,train_st_en_it,train_st_it_en \
        --lr 1e-3 --lr-scheduler fixed --finetune-from-model "$RUN/asr.pt"
fi

step "hypotheses and explanations ($num_masks masks for each utterance and target)"
shown "$RUN/generate.log" "(input of|encoder of|stored) '.*|^[TD]-.*|^Generate .*" \
    fairseq-generate "$RUN/data" --user-dir "$ROOT/fbk_xattn" \
    --task speech_to_text_ctc --gen-subset explained --path "$RUN/model.pt" \
    --max-source-positions 3000 --max-tokens 40000 \
    --beam 5 --no-repeat-ngram-size 5 --prefix-size 1 --scoring sacrebleu --cpu \
    --attribution-dir "$RUN/attributions" --save-cross-attention \
    --explain input encoder --num-masks "$num_masks"

step "correlation of cross-attention with saliency (Table 1 of the paper)"
fbk-xattn correlate "$RUN/attributions"
step "pictures and the interactive report"
plot() { fbk-xattn plot "$RUN/attributions" "$@"; }
mkdir -p "$RUN/plots"
plot --all --output "$RUN/plots"
# Recognition beside translation of the same speech, word by word.
for pair in "asr-en st-en-it" "asr-it st-it-en"; do
    read -r asr st <<< "$pair"
    plot --id "$asr/agent-pass" "$st/agent-pass" --together --words mean \
        --output "$RUN/plots/pair-$asr.png"
done
plot --figure saliency --id asr-en/agent-pass --words mean --output "$RUN/plots/saliency.png"
plot --figure layers --output "$RUN/plots/layers.png"
plot --figure tokens --output "$RUN/plots/tokens.png"
fbk-xattn report "$RUN/attributions" --output "$RUN/report.html" \
    --audio --manifest "$WORK"/corpus/test_*.tsv
printf '\nDone: everything is in %s; open report.html there in a browser\n' "$RUN"
