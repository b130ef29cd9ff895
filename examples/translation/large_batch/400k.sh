#!/usr/bin/env bash
# A batch of 400,000 target tokens: the big Transformer with accumulated gradients and twice the learning rate.
#
# Source: fairseq, examples/scaling_nmt/README.md (Ott et al. 2018, "Scaling Neural Machine Translation"): its settings
# of 32k.sh with --update-freq 16 on 8 GPUs and --lr 0.001. 16 × 8 × 3,584 = 458,752 tokens count padding and unfilled
# room; the round 400,000 target tokens, which are counted without, are ours.
# `bash 400k.sh --help` lists the options.
set -euo pipefail
# shellcheck source=examples/translation/large_batch/preset.sh
. "$(dirname "${BASH_SOURCE[0]}")/preset.sh"

# shellcheck disable=SC2034  # read by preset.sh
batch_tokens=400000 lr=0.001 warmup_updates=4000 warmup_init_lr=1e-7 max_tokens=3584
# shellcheck disable=SC2034
train_options=(
  --arch transformer_vaswani_wmt_en_de_big --share-all-embeddings --dropout 0.3
  --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.0 --clip-norm 0.0
)
launch "$@"
