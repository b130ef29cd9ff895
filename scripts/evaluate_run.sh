#!/usr/bin/env bash
# Translate valid and test with a run's best checkpoint and score them.
#
#   bash scripts/evaluate_run.sh DATA RUN RAW [OPTIONS] [-- MORE FAIRSEQ-GENERATE OPTIONS]
#
# DATA  folder that fairseq-preprocess wrote     RUN  folder with checkpoints/
# RAW   folder with valid.LANG and test.LANG, the references as plain text
#
#   --checkpoint checkpoint_best.pt
#   --beam 5
#   --lenpen N               length penalty; without it, the one of the highest BLEU on the validation set
#   --pair en-de             source-target, where it is not what the files of DATA say
#   --remove-bpe KIND        how pieces are joined (sentencepiece)
#   --tokenized              DATA are Moses tokens: BLEU on them, and on the text that they make
#   --sacrebleu-tokenize T   tokeniser of sacreBLEU's BLEU, where the one for the language is not wanted
#   --lowercase              DATA are in lower case: case does not count
#
# Writes RUN/generate-test.out (and -valid.out to choose the length penalty) and RUN/score.json.
set -euo pipefail

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
fail() { echo "evaluate_run.sh: $*" >&2; exit 2; }

if [ $# -lt 3 ]; then usage >&2; exit 2; fi
data=$1 run=$2 raw=$3
shift 3
checkpoint=checkpoint_best.pt beam=5 lenpen='' pair='' remove_bpe=sentencepiece score=()
while [ $# -gt 0 ]; do
  case $1 in
    --checkpoint) checkpoint=${2:?--checkpoint needs a file name}; shift 2 ;;
    --beam) beam=${2:?--beam needs a number}; shift 2 ;;
    --lenpen) lenpen=${2:?--lenpen needs a number}; shift 2 ;;
    --pair) pair=${2:?--pair needs source-target}; shift 2 ;;
    --remove-bpe) remove_bpe=${2:?--remove-bpe needs a kind}; shift 2 ;;
    --tokenized) score+=(--detokenize --tokens generated); shift ;;
    --sacrebleu-tokenize) score+=(--sacrebleu-tokenize "${2:?--sacrebleu-tokenize needs a name}"); shift 2 ;;
    --lowercase) score+=(--lowercase); shift ;;
    --) shift; break ;;
    *) fail "unknown option $1 (options of fairseq-generate go after --)" ;;
  esac
done

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$run/checkpoints/$checkpoint
[ -f "$model" ] || fail "no checkpoint $model: train first"
# No head in a pipe: it may end before compgen has written all, which pipefail takes for a failure.
indexes=$(compgen -G "$data/test.*-*.*.idx") || fail "$data holds no binarised test data"
pair=${pair:-$(basename "${indexes%%$'\n'*}" | cut -d. -f2)}
source=${pair%%-*} target=${pair#*-}
[ -f "$raw/test.$target" ] || fail "no references $raw/test.$target"

device=(--cpu)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then device=(); fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

if [ -n "$lenpen" ]; then
  subsets=(test)
  search=(--nbest 1 --lenpen "$lenpen")
  score+=(--searched-with "$lenpen")
else
  subsets=(valid test)
  search=(--nbest "$beam")
  score+=(--tune "$run/generate-valid.out" --tune-ref "$raw/valid.$target")
fi

# Translations of a search with other settings, or older than the checkpoint, are made again.
settings="beam $beam lenpen ${lenpen:-tuned} $remove_bpe $checkpoint $*"
same=
if [ "$(cat "$run/search" 2>/dev/null || echo "beam 5 lenpen tuned sentencepiece checkpoint_best.pt ")" = "$settings" ]; then same=1; fi

for subset in "${subsets[@]}"; do
  out=$run/generate-$subset.out
  if [ -n "$same" ] && [ -f "$out" ] && [ "$out" -nt "$model" ]; then continue; fi
  fairseq-generate "$data" --user-dir "$(fairseq-adv user-dir)" --path "$model" --gen-subset "$subset" \
    --source-lang "$source" --target-lang "$target" --beam "$beam" "${search[@]}" \
    --max-len-a 1.5 --max-len-b 20 --remove-bpe "$remove_bpe" \
    --max-tokens 4096 --required-batch-size-multiple 1 "${device[@]}" "$@" >"$out.partial" 2>"$run/generate.log" \
    || fail "fairseq-generate failed on $subset: see $run/generate.log"
  mv "$out.partial" "$out"
done
echo "$settings" >"$run/search"
python "$scripts/score_bleu.py" "$run/generate-test.out" --ref "$raw/test.$target" --lang "$target" \
  --output "$run" "${score[@]}"
