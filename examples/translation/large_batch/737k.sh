#!/usr/bin/env bash
# A batch of 737,280 tokens: the big Transformer as NVIDIA's large submissions to MLPerf Training v0.7 trained it.
#
# Source: mlcommons/training_results_v0.7, NVIDIA/benchmarks/transformer/implementations/pytorch: run_training.sh, and
# config_DGXA100_multi_60x8x1536.sh, _10x8x9216.sh and config_DGX2_multi_60x16x768.sh, which all come to 737,280 tokens
# with Adam, betas (0.86, 0.92), lr 1.732e-3 and 400 updates of warm-up. Their tokens count padding; the limit of 76
# positions, a measure for speed, and the fused kernels are left out. The goal was 25.0 BLEU, not the best BLEU.
# `bash 737k.sh --help` lists the options.
set -euo pipefail
# shellcheck source=examples/translation/large_batch/preset.sh
. "$(dirname "${BASH_SOURCE[0]}")/preset.sh"

# shellcheck disable=SC2034  # read by preset.sh
batch_tokens=737280 lr=1.732e-3 warmup_updates=400 warmup_init_lr=0 max_tokens=9216
# shellcheck disable=SC2034
train_options=(
  --arch transformer_wmt_en_de_big_t2t --share-all-embeddings --dropout 0.1
  --optimizer adam --adam-betas '(0.86, 0.92)' --adam-eps 1e-9 --weight-decay 0.0 --clip-norm 0.0
)
launch "$@"
