#!/usr/bin/env bash
# Does a larger batch cost quality, and do adversarial noise or LAMB win it back? Trains the quickstart's text for a
# fixed number of epochs at several batches in target tokens, by several methods and seeds: a table and a plot.
#
#   bash scripts/quickstart.sh --pairs 2500 --prepare-only
#   bash scripts/large_batch_study.sh --work-dir work/en-de-2500 --seeds 1 2 3 --jobs 2
#
# With --sentences first, a recipe of examples/sentence_prediction instead, its batches in sentences: when does a large
# batch reach the accuracy of a small one?
#
#   bash scripts/large_batch_study.sh --sentences "examples/sentence_prediction/movie.sh --train-rows 0" --seeds 1 2 3
#
# --help lists the options. Run the same command again to go on after an interruption: finished runs are not
# repeated, an interrupted one goes on from its last epoch. WORK/large-batch-epochsN/ gets study.{md,json,png}, and the
# folder of a recipe's data large-batch.{md,json,png}.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/setup_env.sh
. "$scripts/setup_env.sh"
study=large-batch extras=fairseq,report
if [ "${1:-}" = --sentences ]; then
  study=large-batch-sentences extras+=,sentences
  shift
fi
setup_env "$extras" || { echo "large_batch_study.sh: the environment could not be set up: see above" >&2; exit 2; }
exec fairseq-adv study "$study" "$@"
