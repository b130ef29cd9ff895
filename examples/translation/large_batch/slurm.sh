#!/usr/bin/env bash
#SBATCH --job-name=large-batch
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --output=%x-%j.log
#SBATCH --requeue
#
# A preset on the nodes of a SLURM job, one launcher on each node:
#
#   cd examples/translation/large_batch
#   sbatch [--nodes 2 …] slurm.sh 400k.sh DATA SAVE_DIR [OPTIONS] -- --max-update 50000 [MORE]
#
# Options of sbatch change what is asked for above; the batch stays the preset's. DATA and SAVE_DIR are on a file system
# that all nodes share. A job that is queued again goes on from SAVE_DIR/checkpoint_last.pt. Activate the environment
# before sbatch: the job inherits it.
set -euo pipefail

[ $# -ge 3 ] || { echo "slurm.sh: give PRESET.sh DATA SAVE_DIR and the preset's options" >&2; exit 2; }
preset=$1 data=$2 save_dir=$3
shift 3
[ -f "$preset" ] || { echo "slurm.sh: no preset $preset (sbatch runs in the folder that it is called in)" >&2; exit 2; }
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
master=${hosts%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node take different ones

nodes=()
if [ "$SLURM_NNODES" -gt 1 ]; then nodes=(--nodes "$SLURM_NNODES" --master "$master:$port"); fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# shellcheck disable=SC2016  # each task expands its own rank
srun --kill-on-bad-exit=1 bash -c '
  preset=$1 data=$2 save_dir=$3
  shift 3
  rank=()
  if [ "$SLURM_NNODES" -gt 1 ]; then rank=(--node-rank "$SLURM_NODEID"); fi
  exec bash "$preset" "$data" "$save_dir" "${rank[@]}" "$@"' \
  preset "$preset" "$data" "$save_dir" --gpus "${SLURM_GPUS_ON_NODE:-1}" "${nodes[@]}" "$@"
