#!/usr/bin/env bash
# GLUE: the eight tasks of ARCH's Table 8, one at a time with --set, scored on their development sets.
#
# --set glue-rte, glue-mrpc, glue-cola, glue-stsb, glue-sst2, glue-qnli, glue-qqp or glue-mnli. BERT-base as in ARCH,
# appendix B.2: 10 epochs, batch from {8, 16, 32, 64, 128}, rate from {5e-5, 8e-5, 1e-4, 2e-4}, dropout of the encoder
# from {0, 0.1}, S from {1, 2}, step size from {1e-4, 1e-5}; docs/sentences.md has the command that searches it.
#
# The addresses of the sets could not be tried from the machine that this was developed on, nor was a task run there;
# the columns of the files are those that public readers of GLUE take. --mirror takes copies of your own, by their own
# names (RTE.zip, …; for MRPC msr_paraphrase_train.txt and mrpc_dev_ids.tsv).
set -euo pipefail
# shellcheck source=examples/sentence_prediction/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

set=glue-rte sets=(glue-cola glue-sst2 glue-mrpc glue-qqp glue-stsb glue-mnli glue-qnli glue-rte)
encoder=hf:bert-base-uncased                   # ARCH, Sec. 4.3
epochs=10 batch=32 lr=1e-4 dropout=0.1         # ARCH, appendix B.2; batch, rate and dropout are ours within its ranges
methods=plain,r3f,freelb,smart,arch            # ARCH, Table 5
options_of[smart]='--adv-preset arch-b2'
options_of[arch]='--adv-preset arch-b2'

sentence_recipe "$@"; exit # in one line: the file may change while this runs
