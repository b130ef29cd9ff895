#!/usr/bin/env bash
# Translate valid and test with a run's best checkpoint and score them: this calls fairseq-adv evaluate, whose --help
# tells the options.
#
#   bash scripts/evaluate_run.sh DATA RUN RAW [OPTIONS] [-- MORE FAIRSEQ-GENERATE OPTIONS]
set -euo pipefail

exec fairseq-adv evaluate "$@"
