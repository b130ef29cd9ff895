#!/usr/bin/env bash
# ANLI, robustness (ARCH, Table 6): trained on all three rounds together, scored on each round's dev and test set.
#
# Three classes; 162,865 pairs (Nie et al. 2020). The address could not be tried from the machine that this was
# developed on, nor was it run there. --mirror takes a copy of your own (anli_v1.0.zip).
set -euo pipefail
# shellcheck source=examples/sentence_prediction/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

set=anli sets=(anli)
encoder=hf:bert-base-uncased                   # ARCH, Sec. 4.3
epochs=10 batch=32 lr=1e-4 dropout=0.1         # ours, as for GLUE
methods=plain,r3f,smart,arch
options_of[smart]='--adv-preset arch-b2'
options_of[arch]='--adv-preset arch-b2'

sentence_recipe "$@"; exit # in one line: the file may change while this runs
