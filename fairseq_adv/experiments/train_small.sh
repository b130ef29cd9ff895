#!/usr/bin/env bash
# Train one small Transformer (2 + 2 layers, d = 128), plain or with an adversarial criterion.
#
#   bash scripts/train_small.sh DATA RUN METHOD [--epochs 60] [--seed 1] [--name NAME]
#     [-- MORE FAIRSEQ-TRAIN OPTIONS]
#
# DATA    folder that fairseq-preprocess wrote        RUN  folder for train.log, checkpoints/ and run.json
# METHOD  plain, or the name of a criterion of this project without its ending _label_smoothed, such as arch
# NAME    what tables and reports call the run (METHOD)
#
# Every method gets the same model, optimizer, batches and number of epochs. A run that was interrupted goes on
# from its last epoch; a run that is done (RUN/done) is left alone. One CPU core, or the first GPU when there is one.
# Later options of fairseq-train win over earlier ones; with --optimizer or --lr-scheduler among them, what belongs to
# Adam (its betas, the weight decay) or to the inverse square root (warm-up) is left to them as well.
set -euo pipefail

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
fail() { echo "train_small.sh: $*" >&2; exit 2; }

if [ $# -lt 3 ]; then usage >&2; exit 2; fi
data=$1 run=$2 method=$3
shift 3
epochs=60 seed=1 name=$method
while [ $# -gt 0 ]; do
  case $1 in
    --epochs) epochs=${2:?--epochs needs a number}; shift 2 ;;
    --seed) seed=${2:?--seed needs a number}; shift 2 ;;
    --name) name=${2:?--name needs a name}; shift 2 ;;
    --) shift; break ;;
    *) fail "unknown option $1 (options of fairseq-train go after --)" ;;
  esac
done
[[ $epochs =~ ^[1-9][0-9]*$ ]] || fail "--epochs must be a positive number, got $epochs"
[[ $seed =~ ^[0-9]+$ ]] || fail "--seed must be a number, got $seed"
compgen -G "$data/train.*.idx" >/dev/null \
  || fail "$data holds no binarised training data: run fairseq-preprocess first"

mkdir -p "$run"
# shellcheck source=fairseq_adv/experiments/one_at_a_time.sh
. "$(dirname "${BASH_SOURCE[0]}")/one_at_a_time.sh"
hold "$run"
settings="$method $epochs $seed $*"
if [ -f "$run/settings" ] && [ "$(cat "$run/settings")" != "$settings" ]; then
  fail "$run was begun with other settings ($(cat "$run/settings")): take another folder, or delete it"
fi
echo "$settings" >"$run/settings"
if [ -f "$run/done" ]; then exit 0; fi

case $method in
  plain) objective=(--task adversarial_translation --criterion label_smoothed_cross_entropy) ;;
  *) objective=(--task adversarial_translation --criterion "${method}_label_smoothed") ;;
esac
# fairseq refuses options of an optimizer or scheduler that is not chosen.
optimizer=(--optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.0001)
schedule=(--lr-scheduler inverse_sqrt --warmup-updates 400 --warmup-init-lr 1e-7)
for word in "$@"; do
  case $word in
    --optimizer | --optimizer=*) optimizer=() ;;
    --lr-scheduler | --lr-scheduler=*) schedule=() ;;
  esac
done

device=(--cpu)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then device=(--fp16); fi

printf '{"method": "%s", "seed": %d}\n' "$name" "$seed" >"$run/run.json"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

# --required-batch-size-multiple 1: with fairseq's default of 8 the last batch of each set is dropped.
# RUN/cpu-seconds: user and system time of each attempt, which other processes on the machine change less than the clock.
TIMEFORMAT='%U %S'
{ time fairseq-train "$data" --user-dir "$(fairseq-adv user-dir)" "${objective[@]}" --label-smoothing 0.1 \
  --arch transformer --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 128 --decoder-embed-dim 128 \
  --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4 \
  --share-all-embeddings --dropout 0.3 "${optimizer[@]}" --clip-norm 1.0 --lr 0.003 "${schedule[@]}" \
  --max-tokens 1024 --required-batch-size-multiple 1 --max-epoch "$epochs" --seed "$seed" \
  --save-dir "$run/checkpoints" --no-epoch-checkpoints \
  --log-format json --log-interval 10 --num-workers 0 "${device[@]}" "$@" >>"$run/train.log" 2>&1; } 2>>"$run/cpu-seconds"
touch "$run/done"
