#!/usr/bin/env bash
# Run the tests, after setting up what they need:
#
#     bash scripts/test.sh                      # everything that CI runs, a few minutes
#     bash scripts/test.sh -m slow              # what takes long
#     bash scripts/test.sh tests/unit -k cache  # any arguments of pytest
#
# Uses the active virtual environment, else .venv here, which it creates on a fresh machine.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/setup_env.sh
setup_env fairseq,knn,bert,report,dev

# Optimizers to compare ours with; what they ask for besides torch (torchvision) is not needed for that.
python -c 'import sys, importlib.util as u; sys.exit(not (u.find_spec("timm") and u.find_spec("pytorch_optimizer")))' \
  || python -m pip install -qq --no-deps timm pytorch-optimizer

# One thread for each of two processes: small tensors gain nothing from more, and sums are then reproducible.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# A file stays in one process: its fixtures train models.
exec python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
