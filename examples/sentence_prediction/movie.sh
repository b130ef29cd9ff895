#!/usr/bin/env bash
# Film snippets, two classes: plain fine-tuning of a small encoder against ARCH.
#
# 10,603 distinct snippets of film reviews with the mean rating of twenty people (Hutto and Gilbert 2014); the class is
# the rating's sign. --set movie-rating predicts the rating itself. All comes from package registries.
set -euo pipefail
# shellcheck source=examples/sentence_prediction/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

set=movie sets=(movie movie-rating)
train_rows=1000 epochs=2 batch=16 # some minutes on 2 cores; --train-rows 0 takes all 8,000
radii_that_bite

sentence_recipe "$@"; exit # in one line: the file may change while this runs
