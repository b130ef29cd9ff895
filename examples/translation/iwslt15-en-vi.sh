#!/usr/bin/env bash
# IWSLT'15 English-Vietnamese, and with --reverse Vietnamese-English: plain training against ARCH.
#
# 133,000 pairs of TED talks as prepared and published by the Stanford NLP group (Luong and Manning 2015): text of
# Moses tokens with case; tst2012 for validation, tst2013 for test, as on their page. The papers' BLEU of this corpus
# is the one on these tokens; sacreBLEU's is on the text that they make.
#
# The addresses below could not be tried from the machine that this was developed on. --mirror takes a copy of your
# own (train.en, train.vi, tst2012.en, tst2012.vi, tst2013.en, tst2013.vi).
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

corpus=iwslt15-en-vi source=en target=vi
moses='' # published as tokens
max_length=175 length_ratio=9 # ours: only empty and broken pairs go (9: the default of Moses's corpus cleaning)
vocabulary=10000       # ours, as for IWSLT'14
batch_tokens=64k       # ARCH (Zuo et al. 2021), appendix B
max_tokens=4096        # as for IWSLT'14; decides memory and speed only
beam=10 lenpen=1.0 reverse_beam=15 reverse_lenpen=0.3 # ARCH, Table 7
epochs=150             # ARCH, Figure 1, for IWSLT'14; the best checkpoint on the validation set is scored (appendix B.1)
train_options=(
  --arch transformer   # Transformer-base: ARCH, Sec. 4.2
  # run.sh of ARCH's release, which is for IWSLT'14 and which the paper refers to for all IWSLT corpora
  --dropout 0.3 --weight-decay 0.0001 --clip-norm 0.0 --label-smoothing 0.1
  --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --warmup-updates 4000 --lr 0.001
  --eval-bleu --eval-bleu-detok moses --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
)

fetch_text() {
  local address=https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi file files=()
  for file in train.en train.vi tst2012.en tst2012.vi tst2013.en tst2013.vi; do files+=("$file=$address/$file"); done
  fetch "${files[@]}"
  parallel_text download 'train=train.{lang}' 'valid=tst2012.{lang}' 'test=tst2013.{lang}'
}

recipe "$@"; exit # in one line: the file may change while this runs
