#!/usr/bin/env bash
# STS-B, how similar two sentences are: plain fine-tuning of a small encoder against ARCH.
#
# 8,628 pairs with a number from 0 to 5 (Cer et al. 2017); pairs that share a sentence with a held-out set are left out.
# The encoder was tuned on pairs like these before: the step baselines shows what it knows untuned. All comes from
# package registries.
set -euo pipefail
# shellcheck source=examples/sentence_prediction/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

set=stsb sets=(stsb)
train_rows=1000 epochs=2 batch=16 # some minutes on 2 cores; --train-rows 0 takes all 5,000
radii_that_bite

sentence_recipe "$@"; exit # in one line: the file may change while this runs
