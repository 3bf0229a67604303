#!/usr/bin/env bash
# Trains the paper's small model (FAMA-small); --help says how.
set -euo pipefail
# shellcheck source=examples/two_stages.sh
source "$(dirname "$0")/../two_stages.sh"
two_stages conformer_joint_ctc_small \
    32 '--max-tokens 10000 --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 25000' \
    32 '--max-tokens 10000 --lr 1e-4 --lr-scheduler fixed' "$@"
