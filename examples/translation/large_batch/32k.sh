#!/usr/bin/env bash
# A batch of 32,000 target tokens: the big Transformer as fairseq trains it on WMT'16 English-German.
#
# Source: fairseq, examples/scaling_nmt/README.md (Ott et al. 2018, "Scaling Neural Machine Translation"): 8 GPUs with
# --max-tokens 3584 and no accumulation, at most 28,672 tokens, padding included. The round 32,000 is ours.
# `bash 32k.sh --help` lists the options.
set -euo pipefail
# shellcheck source=examples/translation/large_batch/preset.sh
. "$(dirname "${BASH_SOURCE[0]}")/preset.sh"

# shellcheck disable=SC2034  # read by preset.sh
batch_tokens=32000 lr=0.0005 warmup_updates=4000 warmup_init_lr=1e-7 max_tokens=3584
# shellcheck disable=SC2034
train_options=(
  --arch transformer_vaswani_wmt_en_de_big --share-all-embeddings --dropout 0.3
  --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.0 --clip-norm 0.0
)
launch "$@"
