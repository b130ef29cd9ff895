#!/usr/bin/env bash
# IWSLT'14 German-English, and with --reverse English-German: plain training against ARCH.
#
# 160,000 pairs of TED talks. The set-up of fairseq's examples/translation/prepare-iwslt14.sh: Moses tokens in lower
# case, pairs of 1 to 175 tokens and a ratio of at most 1.5, every 23rd for validation, 10,000 joint merges; test is
# dev2010, dev2012 and tst2010 to tst2012 one after the other. The papers' BLEU of this corpus is the tokenised one.
#
# The addresses below could not be tried from the machine that this was developed on. WIT3's own has moved more than
# once; the second is the copy that fairseq's script came to use. --mirror takes a copy of your own (de-en.tgz).
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

corpus=iwslt14-de-en source=de target=en
lowercase=1 plain_apostrophes=1 max_length=175 length_ratio=1.5 valid_every=23 # fairseq's prepare-iwslt14.sh
vocabulary=10000       # merges of both languages together: fairseq's prepare-iwslt14.sh
batch_tokens=64k       # ARCH (Zuo et al. 2021), appendix B
max_tokens=4096        # fairseq's examples/translation/README.md; decides memory and speed only
beam=9 lenpen=1.5 reverse_beam=10 reverse_lenpen=1.5 # ARCH, Table 7; run.sh of its release has the first
epochs=150             # ARCH, Figure 1, for IWSLT'14; the best checkpoint on the validation set is scored (appendix B.1)
train_options=(
  # fairseq's examples/translation/README.md and, the same, run.sh of ARCH's release; the model of ARCH, Sec. 4.2
  --arch transformer_iwslt_de_en --dropout 0.3 --weight-decay 0.0001 --clip-norm 0.0 --label-smoothing 0.1
  --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --warmup-updates 4000
  --lr 0.001           # ARCH, appendix B.1 (fairseq's README: 0.0005, for smaller batches)
  # the best checkpoint is the one of the highest BLEU: run.sh of ARCH's release
  --eval-bleu --eval-bleu-detok moses --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
)

fetch_text() {
  fetch "de-en.tgz=https://wit3.fbk.eu/archive/2014-01/texts/de/en/de-en.tgz" \
    "de-en.tgz=http://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz"
  unpack de-en.tgz orig 'de-en/train.tags.de-en.de' 'de-en/train.tags.de-en.en' 'de-en/IWSLT14.TED*.xml'
  parallel_text orig 'train=de-en/train.tags.de-en.{lang}' \
    'test=de-en/IWSLT14.TED.dev2010.de-en.{lang}.xml' 'test=de-en/IWSLT14.TEDX.dev2012.de-en.{lang}.xml' \
    'test=de-en/IWSLT14.TED.tst2010.de-en.{lang}.xml' 'test=de-en/IWSLT14.TED.tst2011.de-en.{lang}.xml' \
    'test=de-en/IWSLT14.TED.tst2012.de-en.{lang}.xml'
}

recipe "$@"; exit # in one line: the file may change while this runs
