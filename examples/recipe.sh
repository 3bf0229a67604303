# shellcheck shell=bash
# Sourced by the recipes (base, small, large, fama): arguments, launcher, and a stage of training with
# the settings that all models of the paper share.

USER_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/fbk_xattn"
read -ra LAUNCHER <<< "${LAUNCH:-}"

die() {
    echo "error: $1" >&2
    exit 2
}

# expect 'NAME NAME ...' COMMAND "$@": prints the comment at the top of the calling file if help is
# asked for. Refuses a command line that does not begin with these arguments and go on with flags, one
# with --save-dir, where the average would not be looked for, and an environment without COMMAND.
expect() {
    local names="$1" command="$2" name usage
    shift 2
    case "${1:-}" in
        -h | --help) sed -n '1d; /^#/!q; s/^# \{0,1\}//p' "${BASH_SOURCE[1]}"; exit 0 ;;
    esac
    usage="expected: $0 $names [FLAGS]; --help says more"
    for name in $names; do
        case "${1:-}" in
            "" | -*) die "$name is missing, $usage" ;;
        esac
        shift
    done
    case "${1:--}" in
        -*) ;;
        *) die "unexpected argument $1, $usage" ;;
    esac
    for name; do
        case "$name" in
            --save-dir | --save-dir=*) die "unexpected flag $name, $usage" ;;
        esac
    done
    for name in "$command" fbk-xattn; do
        command -v "$name" > /dev/null ||
            die "no command $name, expected an environment with fbk_xattn installed"
    done
}

# expect_manifests FOLDER NAMES...: refuses names (comma-separated lists) without a manifest there.
expect_manifests() {
    local folder="$1" names name IFS=,
    shift
    names="$*"
    [ -d "$folder" ] || die "$folder: no such folder, expected data made by fbk-xattn prepare"
    for name in $names; do
        [ -f "$folder/$name.tsv" ] || die "$folder/$name.tsv: no such manifest; --help lists the names"
    done
}

# expect_numbers NAMES...: refuses variables that are not whole numbers from 1.
expect_numbers() {
    local name
    for name; do
        [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || die "$name=${!name}: expected a whole number from 1"
    done
}

# per_gpu N: what --update-freq is when the N batches of an update are spread over GPUS.
per_gpu() {
    (($1 % GPUS == 0)) || die "GPUS=$GPUS: expected a divisor of $1, the batches of one update"
    echo $(($1 / GPUS))
}

# stage NAME SUBSETS VALIDATION_SUBSETS FLAGS...: trains in SAVE_DIR/NAME, going on from its
# checkpoint_last.pt if there is one, and averages the last AVERAGE checkpoints into
# SAVE_DIR/NAME.pt; does nothing if that is there. Of flags given twice the last one counts.
stage() {
    local name="$1" subsets="$2" validation="$3"
    shift 3
    if [ -f "$SAVE_DIR/$name.pt" ]; then
        echo "== $name: done, $SAVE_DIR/$name.pt"
        return
    fi
    echo "== $name: training in $SAVE_DIR/$name  [$(date '+%F %H:%M:%S')]"
    "${LAUNCHER[@]}" fairseq-train "$DATA" --user-dir "$USER_DIR" \
        --train-subset "$subsets" --valid-subset "$validation" --save-dir "$SAVE_DIR/$name" \
        --criterion ctc_multi_loss --underlying-criterion joint_cross_entropy_ctc \
        --label-smoothing 0.1 --ignore-prefix-size 1 \
        --ctc-weight 1.0 --primary-loss-weight 5.0 --auxiliary-loss-weight 2.0 \
        --optimizer adamw --adam-betas '(0.9, 0.98)' --weight-decay 0.001 --clip-norm 10.0 \
        --max-source-positions 3000 --max-target-positions 512 \
        --skip-invalid-size-inputs-valid-test --num-workers 1 --seed 1 --log-format simple \
        --validate-interval 1000 --save-interval-updates 1000 --no-epoch-checkpoints \
        --keep-interval-updates "$AVERAGE" --distributed-world-size "$GPUS" "$@"
    echo "== $name: average of the last $AVERAGE checkpoints  [$(date '+%F %H:%M:%S')]"
    fbk-xattn average-checkpoints --inputs "$SAVE_DIR/$name" --output "$SAVE_DIR/$name.pt" \
        --num-update-checkpoints "$AVERAGE"
}
