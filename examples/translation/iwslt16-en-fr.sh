#!/usr/bin/env bash
# IWSLT'16 English-French, and with --reverse French-English: plain training against ARCH.
#
# 220,000 pairs of TED talks from WIT3's release 2016-01, both directions from the same files. Moses tokens with case,
# cleaned as fairseq cleans IWSLT'14; tst2013 for validation, tst2014 for test, the defaults of torchtext's IWSLT.
# Which sets and what case ARCH's paper used is not in its release: compare methods, not with its numbers.
#
# The address below could not be tried from the machine that this was developed on, and WIT3 has moved more than once.
# --mirror takes a copy of your own (en-fr.tgz).
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

corpus=iwslt16-en-fr source=en target=fr
plain_apostrophes=1 max_length=175 length_ratio=1.5 # fairseq's prepare-iwslt14.sh, for the same kind of files
vocabulary=10000       # ours, as for IWSLT'14
batch_tokens=64k       # ARCH (Zuo et al. 2021), appendix B
max_tokens=4096        # as for IWSLT'14; decides memory and speed only
beam=10 lenpen=0.2 reverse_beam=10 reverse_lenpen=2.0 # ARCH, Table 7
epochs=150             # ARCH, Figure 1, for IWSLT'14; the best checkpoint on the validation set is scored (appendix B.1)
train_options=(
  --arch transformer   # Transformer-base: ARCH, Sec. 4.2
  # run.sh of ARCH's release, which is for IWSLT'14 and which the paper refers to for all IWSLT corpora
  --dropout 0.3 --weight-decay 0.0001 --clip-norm 0.0 --label-smoothing 0.1
  --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --warmup-updates 4000 --lr 0.001
  --eval-bleu --eval-bleu-detok moses --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
)

fetch_text() {
  fetch "en-fr.tgz=https://wit3.fbk.eu/archive/2016-01/texts/en/fr/en-fr.tgz"
  unpack en-fr.tgz orig 'en-fr/train.tags.en-fr.en' 'en-fr/train.tags.en-fr.fr' \
    'en-fr/IWSLT16.TED.tst2013.en-fr.??.xml' 'en-fr/IWSLT16.TED.tst2014.en-fr.??.xml'
  parallel_text orig 'train=en-fr/train.tags.en-fr.{lang}' \
    'valid=en-fr/IWSLT16.TED.tst2013.en-fr.{lang}.xml' 'test=en-fr/IWSLT16.TED.tst2014.en-fr.{lang}.xml'
}

recipe "$@"; exit # in one line: the file may change while this runs
