#!/usr/bin/env bash
# Makes the stores that RESULTS.md is computed from: one fairseq-generate a store, all tasks at once.
#
#   bash examples/prompts/study/explain.sh --data DATA --model CKPT --work WORK [OPTION...] NAME...
#     --data DATA      folder with config.yaml, features and {test,dev}_{asr_en,asr_it,st_en_it,st_it_en}.tsv
#     --model CKPT     checkpoint
#     --work WORK      folder to write to: stores/, deleted/, measured/, logs/
#     --cpu            on the CPU
#     --jobs N         so many at a time (default: 1)
#     --gpus 0,1       GPUs that these take in turns (default: all see all)
#     --max-tokens N   frames in a batch (default: 40000; deletion is faster with more, on a GPU)
#     --subset N       utterances for convergence and precision, of all tasks together (default: 24)
#     --sweep-masks N  masks of p1 to p9 (default: 20000)
#     --fewer K        divides every number of masks by K, to try the study out (default: 1)
#     --per-task N     takes N utterances of each manifest, to try the study out (default: all)
#     --dry-run        prints the commands and runs none
#     -- FLAG...       further flags for every fairseq-generate
#   NAMEs are these, or groups of them; what is done is skipped, what was interrupted goes on:
#     main                        test split, the published setting
#     p1 p3 p5 p7 p9              dev split, occlusion probability 0.1 ... 0.9 (group: probabilities)
#     n2000-1 ... n20000-2        numbers of masks, two seeds (group: convergence)
#     fp32 fp16 bf16              precisions (group: precision)
#     delete-MAP, insert-input    deletion and insertion of main (group: deletion)
#     delete-pN-input, -encoder   deletion of p1 to p9 (group: deletion-probabilities)
#     measure                     what results.py needs of the stores, small enough to carry: measured/
#     all                         everything
#   --list prints the names one a line.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
PYTHON="${PYTHON:-python}"
PROBABILITIES=(p1 p3 p5 p7 p9)
CONVERGENCE=(n{2000,5000,10000,20000}-{1,2})
PRECISION=(fp32 fp16 bf16)
DELETION=(delete-{input,random,2d-max,2d-avg,cross-attention,random-frames,encoder,random-encoder}
    insert-input)
DELETION_PROBABILITIES=(delete-p{1,3,5,7,9}-{input,encoder})
TASKS=(asr_en asr_it st_en_it st_it_en)

fail() { echo "error: $1" >&2; exit 2; }

data="" model="" work="" device=() jobs=1 gpus="" max_tokens=40000 subset=24 sweep=20000 fewer=1 per_task=0 dry=""
digest=""
names=() more=()
while [ $# -gt 0 ]; do
    case "$1" in
        --data) data="${2:?--data expects a folder}"; shift 2 ;;
        --model) model="${2:?--model expects a checkpoint}"; shift 2 ;;
        --work) work="${2:?--work expects a folder}"; shift 2 ;;
        --cpu) device=(--cpu); shift ;;
        --jobs) jobs="${2:?--jobs expects a number}"; shift 2 ;;
        --gpus) gpus="${2:?--gpus expects numbers}"; shift 2 ;;
        --max-tokens) max_tokens="${2:?--max-tokens expects a number}"; shift 2 ;;
        --subset) subset="${2:?--subset expects a number}"; shift 2 ;;
        --sweep-masks) sweep="${2:?--sweep-masks expects a number}"; shift 2 ;;
        --fewer) fewer="${2:?--fewer expects a number}"; shift 2 ;;
        --per-task) per_task="${2:?--per-task expects a number}"; shift 2 ;;
        --dry-run) dry=1; shift ;;
        --list)
            printf '%s\n' main "${PROBABILITIES[@]}" "${CONVERGENCE[@]}" "${PRECISION[@]}" \
                "${DELETION[@]}" "${DELETION_PROBABILITIES[@]}"
            exit 0 ;;
        -h | --help) sed -n '2,28s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; more=("$@"); break ;;
        probabilities) names+=("${PROBABILITIES[@]}"); shift ;;
        convergence) names+=("${CONVERGENCE[@]}"); shift ;;
        precision) names+=("${PRECISION[@]}"); shift ;;
        deletion) names+=("${DELETION[@]}"); shift ;;
        deletion-probabilities) names+=("${DELETION_PROBABILITIES[@]}"); shift ;;
        all)
            names+=(main "${PROBABILITIES[@]}" "${CONVERGENCE[@]}" "${PRECISION[@]}" "${DELETION[@]}"
                "${DELETION_PROBABILITIES[@]}" measure)
            shift ;;
        main | measure | p[13579] | n*-[12] | fp32 | fp16 | bf16 | delete-* | insert-input)
            names+=("$1"); shift ;;
        *) fail "unknown argument $1; --help lists what is expected" ;;
    esac
done
[ "${#names[@]}" != 0 ] || fail "no NAME given; --help lists what is expected"
[ -n "$work" ] || fail "--work: expected a folder to write to"
if [ "${names[*]}" != measure ]; then
    [ -f "$data/config.yaml" ] || fail "--data $data: expected a folder with config.yaml"
    [ -f "$model" ] || fail "--model $model: no such file"
    for split in test dev; do
        for task in "${TASKS[@]}"; do
            [ -f "$data/${split}_$task.tsv" ] || fail "--data $data: no ${split}_$task.tsv"
        done
    done
    data="$(cd "$data" && pwd)"
    model="$(realpath "$model")"
    # Of what a mark of done is: another model of this name is refused by the stores.
    digest="$(sha256sum "$model")"
    digest="${digest%% *}"
fi
mkdir -p "$work"/{data,stores,deleted,logs,done}
work="$(cd "$work" && pwd)"

split() { local list; list="$(printf ",$1_%s" "${TASKS[@]}")"; echo "${list#,}"; }

# Links to the data, and beside them the manifests that the study makes of theirs. None of them is
# gone for a moment, as others may be reading it: several of these scripts may run on one WORK.
prepare_data() {
    local file name link
    for file in "$data"/*; do
        name="$(basename "$file")"
        case "$name" in
            test_*.tsv | dev_*.tsv)
                if [ "$per_task" != 0 ]; then
                    choose "$per_task" "$work/data/$name" "$file"
                    continue
                fi ;;
        esac
        link="$work/data/$name"
        if [ ! "$link" -ef "$file" ]; then
            ln -sfn "$file" "$link.$$"
            mv -fT "$link.$$" "$link"
        fi
    done
    local manifests=("${TASKS[@]/#/$work/data/test_}")
    choose "$subset" "$work/data/study_subset.tsv" "${manifests[@]/%/.tsv}"
}
choose() { (cd "$ROOT" && "$PYTHON" -m examples.prompts.study.subset "$@"); }

masks() { echo $(($1 / fewer > 0 ? $1 / fewer : 1)); }

# The flags of a name, into the array flags, and what has to be there before, into needs.
flags_of() {
    local name="$1" explained=(--save-cross-attention --explain input encoder)
    local store="$work/stores/$name" p map
    needs=""
    case "$name" in
        main)
            flags=(--gen-subset "$(split test)" --num-masks "$(masks 20000)") ;;
        p[13579])
            p="0.${name#p}"
            flags=(--gen-subset "$(split dev)" --num-masks "$(masks "$sweep")"
                --input-occlusion-probability "$p" --encoder-occlusion-probability "$p") ;;
        n2000-[12] | n5000-[12] | n10000-[12] | n20000-[12])
            p="${name%-*}"
            flags=(--gen-subset study_subset --num-masks "$(masks "${p#n}")" --seed "${name#*-}") ;;
        fp32 | fp16 | bf16)
            flags=(--gen-subset study_subset --num-masks "$(masks 20000)"
                --explanation-precision "$name") ;;
        delete-p[13579]-input | delete-p[13579]-encoder)
            map="${name#delete-p?-}"
            needs="${name#delete-}" needs="${needs%-"$map"}"
            flags=(--gen-subset "$(split dev)" --deletion "$work/deleted/$name"
                --deletion-map "$map") ;;
        delete-2d-max | delete-2d-avg)
            needs=main
            flags=(--gen-subset "$(split test)" --deletion "$work/deleted/$name"
                --deletion-map input-frames --deletion-aggregation "${name#delete-}") ;;
        delete-input | delete-cross-attention | delete-encoder | delete-random | \
            delete-random-frames | delete-random-encoder)
            needs=main
            flags=(--gen-subset "$(split test)" --deletion "$work/deleted/$name"
                --deletion-map "${name#delete-}") ;;
        insert-input)
            needs=main
            flags=(--gen-subset "$(split test)" --insertion "$work/deleted/$name"
                --deletion-map input) ;;
        *) fail "unknown argument $name; --help lists what is expected" ;;
    esac
    if [ -n "$needs" ]; then
        flags+=(--attribution-dir "$work/stores/$needs")
    else
        flags+=(--attribution-dir "$store" "${explained[@]}")
    fi
}

# One name: its command, unless that is done. The last lines of its log where it fails.
run() {
    local name="$1" gpu="$2" flags needs log="$work/logs/$1.log" mark="$work/done/$1" started=$SECONDS
    flags_of "$name"
    local command=(fairseq-generate "$work/data" --user-dir "$ROOT/fbk_xattn"
        --task speech_to_text_ctc --path "$model" --max-source-positions 3000
        --max-tokens "$max_tokens" --beam 5 --no-repeat-ngram-size 5 --prefix-size 1
        --scoring sacrebleu --num-workers 0 "${device[@]}" "${flags[@]}" "${more[@]}")
    if [ -n "$dry" ]; then
        printf '%s: %s\n' "$name" "${command[*]}"
        return
    fi
    if [ "$(cat "$mark" 2>/dev/null)" = "$digest ${command[*]}" ]; then
        echo "$name: done"
        return
    fi
    if [ -n "$needs" ] && [ ! -f "$work/done/$needs" ]; then
        echo "$name: needs $needs, which is not done" >&2
        return 1
    fi
    # Without --gpus the variable is the caller's, set or not.
    [ -z "$gpu" ] || export CUDA_VISIBLE_DEVICES="$gpu"
    if ! "${command[@]}" > "$log" 2>&1; then
        echo "$name: failed; the end of $log:" >&2
        tail -n 3 "$log" >&2
        return 1
    fi
    printf '%s' "$digest ${command[*]}" > "$mark"
    echo "$name: $((SECONDS - started)) s"
}

# Side by side, each with its share of the cores.
if [ "$jobs" -gt 1 ] && [ -z "${OMP_NUM_THREADS:-}" ]; then
    cores="$(nproc)"
    export OMP_NUM_THREADS=$((cores / jobs > 0 ? cores / jobs : 1))
fi

# Names that do not wait for each other, some at a time; counts the failures.
failures=0
run_all() {
    local name number=0 running=0 list=("")
    [ -z "$gpus" ] || IFS=, read -ra list <<< "$gpus"
    for name in "$@"; do
        if [ "$running" -ge "$jobs" ]; then
            wait -n || failures=$((failures + 1))
            running=$((running - 1))
        fi
        run "$name" "${list[number % ${#list[@]}]}" &
        running=$((running + 1))
        number=$((number + 1))
    done
    while [ "$running" -gt 0 ]; do
        wait -n || failures=$((failures + 1))
        running=$((running - 1))
    done
}

explained=() deleted=() measured=""
for name in "${names[@]}"; do
    case "$name" in
        measure) measured=1 ;;
        delete-* | insert-*) flags_of "$name"; deleted+=("$name") ;;
        *) flags_of "$name"; explained+=("$name") ;;
    esac
done
if [ -z "$dry" ] && [ "${#explained[@]}${#deleted[@]}" != 00 ]; then prepare_data; fi
run_all "${explained[@]}"
run_all "${deleted[@]}"
if [ -n "$measured" ] && [ -z "$dry" ]; then
    (cd "$ROOT" && "$PYTHON" -m examples.prompts.study.measure "$work" --processes "$jobs") ||
        failures=$((failures + 1))
fi
[ "$failures" = 0 ] || { echo "error: $failures of the above failed" >&2; exit 1; }
