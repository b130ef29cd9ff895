#!/usr/bin/env bash
# WMT'16 English-German: plain training against ARCH in batches of 450,000 tokens. (--reverse: German-English.)
#
# 4.5 million pairs: Europarl v7, Common Crawl and News Commentary v11, newstest2013 for validation, newstest2014 (all
# 3003 sentences) for test: the sources and the cleaning of the data that Google prepared and fairseq's
# examples/scaling_nmt/README.md (Ott et al. 2018) trains on, made anew here, since that package can only be had
# through a browser. Moses tokens with case, pairs of 1 to 80 tokens, 32,000 joint merges, one dictionary.
# Nine million lines are tokenised on all cores (--workers); the text stays on disk in each of its forms.
#
# The addresses below could not be tried from the machine that this was developed on. --mirror takes copies of your
# own (de-en.tgz of Europarl, training-parallel-commoncrawl.tgz, training-parallel-nc-v11.tgz, dev.tgz, test-full.tgz).
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

corpus=wmt16-en-de source=en target=de
max_length=80 length_ratio=9 # google/seq2seq's bin/data/wmt16_en_de.sh: Moses's cleaning, 1 to 80, its default ratio
plain_apostrophes=1    # in newstest2014: fairseq's examples/translation/prepare-wmt14en2de.sh
vocabulary=32000       # fairseq's examples/scaling_nmt/README.md
joined_dictionary=1    # fairseq's examples/scaling_nmt/README.md
batch_tokens=450k      # ARCH (Zuo et al. 2021), appendix B
max_tokens=3584        # fairseq's examples/scaling_nmt/README.md; decides memory and speed only
beam=4 lenpen=0.6      # ARCH, Table 7, after Vaswani et al. 2017 (whose penalty has another formula than fairseq's)
average=10             # ours, after Vaswani et al. 2017, who average 5 checkpoints of base, 20 of big models
epochs=50              # ours: neither the paper nor fairseq's README names one
train_options=(
  # fairseq's examples/scaling_nmt/README.md, which ARCH's appendix B.1 refers to; --lr 0.001 is in both
  --arch transformer_vaswani_wmt_en_de_big --dropout 0.3 --weight-decay 0.0 --clip-norm 0.0 --label-smoothing 0.1
  --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --warmup-updates 4000
  --warmup-init-lr 1e-07 --lr 0.001
)

fetch_text() {
  local statmt=http://www.statmt.org data=http://data.statmt.org/wmt16/translation-task
  fetch "de-en.tgz=$statmt/europarl/v7/de-en.tgz" \
    "training-parallel-commoncrawl.tgz=$statmt/wmt13/training-parallel-commoncrawl.tgz" \
    "training-parallel-nc-v11.tgz=$data/training-parallel-nc-v11.tgz" \
    "dev.tgz=$data/dev.tgz" "test-full.tgz=$statmt/wmt14/test-full.tgz"
  unpack de-en.tgz orig/europarl 'europarl-v7.de-en.de' 'europarl-v7.de-en.en'
  unpack training-parallel-commoncrawl.tgz orig/commoncrawl 'commoncrawl.de-en.de' 'commoncrawl.de-en.en'
  unpack training-parallel-nc-v11.tgz orig/news '*/news-commentary-v11.de-en.de' '*/news-commentary-v11.de-en.en'
  unpack dev.tgz orig/dev 'dev/newstest2013.de' 'dev/newstest2013.en'
  unpack test-full.tgz orig/test 'test-full/newstest2014-deen-src.en.sgm' 'test-full/newstest2014-deen-ref.de.sgm'
  parallel_text orig 'train=europarl/europarl-v7.de-en.{lang}' 'train=commoncrawl/commoncrawl.de-en.{lang}' \
    'train=news/*/news-commentary-v11.de-en.{lang}' 'valid=dev/dev/newstest2013.{lang}' \
    'test=test/test-full/newstest2014-deen-???.{lang}.sgm'
}

recipe "$@"; exit # in one line: the file may change while this runs
