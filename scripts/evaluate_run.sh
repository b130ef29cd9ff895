#!/usr/bin/env bash
# Translate valid and test with a run's best checkpoint and score them.
#
#   bash scripts/evaluate_run.sh DATA RUN RAW [--checkpoint checkpoint_best.pt] [--beam 5] [-- MORE FAIRSEQ-GENERATE OPTIONS]
#
# DATA  folder that fairseq-preprocess wrote     RUN  folder with checkpoints/
# RAW   folder with valid.LANG and test.LANG, the references as plain text
#
# Writes RUN/generate-{valid,test}.out and RUN/score.json. The length penalty is chosen on the validation set.
set -euo pipefail

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; }
fail() { echo "evaluate_run.sh: $*" >&2; exit 2; }

if [ $# -lt 3 ]; then usage >&2; exit 2; fi
data=$1 run=$2 raw=$3
shift 3
checkpoint=checkpoint_best.pt beam=5
while [ $# -gt 0 ]; do
  case $1 in
    --checkpoint) checkpoint=${2:?--checkpoint needs a file name}; shift 2 ;;
    --beam) beam=${2:?--beam needs a number}; shift 2 ;;
    --) shift; break ;;
    *) fail "unknown option $1 (options of fairseq-generate go after --)" ;;
  esac
done

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$run/checkpoints/$checkpoint
[ -f "$model" ] || fail "no checkpoint $model: train first"
index=$(compgen -G "$data/test.*-*.*.idx" | head -n 1) || fail "$data holds no binarised test data"
pair=$(basename "$index" | cut -d. -f2)
target=${pair#*-}
[ -f "$raw/test.$target" ] || fail "no references $raw/test.$target"

device=(--cpu)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then device=(); fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

for subset in valid test; do
  out=$run/generate-$subset.out
  if [ -f "$out" ] && [ "$out" -nt "$model" ]; then continue; fi
  fairseq-generate "$data" --user-dir "$(fairseq-adv user-dir)" --path "$model" --gen-subset "$subset" \
    --beam "$beam" --nbest "$beam" --max-len-a 1.5 --max-len-b 20 --remove-bpe sentencepiece \
    --max-tokens 4096 --required-batch-size-multiple 1 "${device[@]}" "$@" >"$out.partial" 2>"$run/generate.log" \
    || fail "fairseq-generate failed on $subset: see $run/generate.log"
  mv "$out.partial" "$out"
done
python "$scripts/score_bleu.py" "$run/generate-test.out" --ref "$raw/test.$target" \
  --tune "$run/generate-valid.out" --tune-ref "$raw/valid.$target" --lang "$target" --output "$run"
