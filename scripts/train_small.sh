#!/usr/bin/env bash
# Train one small Transformer (2 + 2 layers, d = 128): this calls train_small.sh of the package fairseq_adv.
#
#   bash scripts/train_small.sh DATA RUN METHOD [--epochs 60] [--seed 1] [--name NAME]
#     [-- MORE FAIRSEQ-TRAIN OPTIONS]
set -euo pipefail

exec bash "$(fairseq-adv user-dir)/experiments/train_small.sh" "$@"
