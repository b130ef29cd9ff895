#!/usr/bin/env bash
# Does a training survive kill -9? Trains a tiny ARCH model on two processes again and again, kills one or all of them
# at random moments, restarts, and compares what comes out with an uninterrupted training.
#
#   bash scripts/soak.sh                                # 100 kills, about ten minutes on two cores
#   bash scripts/soak.sh --kills 500 --seed 7           # other moments
#   bash scripts/soak.sh --kills 5 --launcher torchrun  # torchrun starts each attempt and is killed too; slower
#   bash scripts/soak.sh --help                         # all options
#
# A training is six epochs with refreshes in epochs 1, 3 and 5, dropout on, a checkpoint every second update. Half of
# the kills come at a uniform time, half are aimed at a resume, a seal, a commit or a checkpoint. Exit status 1 if
# anything deviates: a bit of the final parameters, optimizer state or cache; a loss of any update of any attempt;
# `fairseq-adv cache verify`; an error that a kill does not explain; a hang. The files are then kept.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/setup_env.sh
. scripts/setup_env.sh
setup_env fairseq || { echo "soak.sh: the environment could not be set up: see above" >&2; exit 2; }
# One thread: ranks are forked from a process that must have no other, and sums are then reproducible.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 CUDA_VISIBLE_DEVICES="" PYTHONWARNINGS=ignore
exec python -m tests.faults.real_kills "$@"
