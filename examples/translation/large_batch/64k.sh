#!/usr/bin/env bash
# A batch of 64,000 target tokens: the small Transformer of IWSLT as ARCH trains it.
#
# Sources: Zuo et al. 2021 ("ARCH: Efficient Adversarial Regularized Training with Caching"), appendix B, for the batch;
# run.sh of the authors' release for the rest. `bash 64k.sh --help` lists the options; examples/translation/iwslt*.sh
# make the data, train and score.
set -euo pipefail
# shellcheck source=examples/translation/large_batch/preset.sh
. "$(dirname "${BASH_SOURCE[0]}")/preset.sh"

# shellcheck disable=SC2034  # read by preset.sh
batch_tokens=64000 lr=0.001 warmup_updates=4000 warmup_init_lr=0 max_tokens=4096
# shellcheck disable=SC2034
train_options=(
  --arch transformer_iwslt_de_en --dropout 0.3
  --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.0001 --clip-norm 0.0
)
launch "$@"
