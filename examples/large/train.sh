#!/usr/bin/env bash
# Trains the paper's large model (FAMA-medium); --help says how.
set -euo pipefail
# shellcheck source=examples/two_stages.sh
source "$(dirname "$0")/../two_stages.sh"
two_stages conformer_joint_ctc_large \
    80 "--max-tokens 5500 --lr 2e-4 --lr-scheduler piecewise_warmup --warmup-updates 50000 \
        --intermediate-lr 2e-5 --intermediate-warmup-updates 25000" \
    96 '--max-tokens 4500 --lr 1e-5 --lr-scheduler fixed' "$@"
