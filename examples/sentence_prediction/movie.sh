#!/usr/bin/env bash
# Film snippets, two classes: plain fine-tuning of a small encoder against SMART.
#
# 10,603 distinct snippets of film reviews with the mean rating of twenty people (Hutto and Gilbert 2014); the class is
# the rating's sign. --set movie-rating predicts the rating itself. All comes from package registries.
set -euo pipefail
# shellcheck source=examples/sentence_prediction/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

set=movie sets=(movie movie-rating)

sentence_recipe "$@"; exit # in one line: the file may change while this runs
