# shellcheck shell=bash
# What the recipes of this folder share; sourced by them, not run. A recipe sets the variables below, defines
# fetch_text, and calls   recipe "$@".
#
#   bash examples/translation/RECIPE.sh [OPTIONS] STEP [-- MORE FAIRSEQ-TRAIN OPTIONS]
#
# Steps; each goes on where it was interrupted and does not repeat what is done:
#   prepare                    fetch, check and unpack the corpus; tokens, subwords, fairseq-preprocess
#   neighbors [SEED]           nearest cached sentences of every training pair, for arch
#   train METHOD [SEED]        METHOD is plain, or a criterion METHOD_label_smoothed of this project
#   evaluate [METHOD] [SEED]   translate the test set and score it; without METHOD all finished runs, with a table
#   all [SEED]                 all of this for --methods
#   folder [METHOD] [SEED]     print where the run (or all runs) of that method is
#
# Options:
#   --reverse                  the other direction
#   --mirror DIR_OR_URL        take the corpus's files, by their own names, from there
#   --translations DIR         the same, for a folder of an archive's indexes (the recipes debian-LANG-en)
#   --pairs N   --held-out N   training pairs at most, and pairs to validate and to test on (debian-LANG-en)
#   --work-dir work            where everything goes
#   --bpe sentencepiece        or subword-nmt
#   --vocabulary N             pieces or merges of both languages together
#   --embeddings SOURCE        word embeddings that neighbors are found by: hf:NAME_OR_PATH, fairseq:FILE, random
#   --proportion 0.1           share of pairs that arch caches; another has a neighbor file of its own
#   --methods plain,arch       what "all" trains
#   --epochs N                 the budget of a training
#   --batch-tokens N           target tokens of an update, such as 64k
#   --beam N   --lenpen N      of the search, where the paper's are not wanted; --lenpen tuned: chosen on the validation set
#   --sacrebleu-tokenize T     tokeniser of sacreBLEU's BLEU, where the one for the language is not wanted
#   --average N                score the mean of the last N epochs' checkpoints; 0: the best checkpoint
#   --name NAME                what train calls the run, and evaluate then takes for METHOD
#   --normalize                Moses's normalisation of punctuation before tokenisation
#   --workers N                processes for tokenisation and binarisation

recipe_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$recipe_folder/../.." && pwd)
scripts=$root/scripts

# ---- what a recipe may set ----
corpus=''              # name of the folder below --work-dir
source='' target=''    # direction without --reverse
lowercase=''           # 1: tokens in lower case
moses=1                # '': the text is published as tokens
max_length=175         # tokens of either side of a training pair
length_ratio=1.5       # of the two sides
valid_every=0          # N: every N-th training pair is for validation; 0: the corpus has a validation set
plain_apostrophes=''   # 1: ’ becomes ' in XML and SGML sets
vocabulary=10000
joined_dictionary=''   # 1: one dictionary, all embeddings shared
max_tokens=4096        # of a micro-batch; only memory and speed depend on it
batch_tokens=64k
epochs=200
beam=5 lenpen=1.0      # of the search
reverse_beam='' reverse_lenpen='' # with --reverse, where they differ
average=0
train_options=()       # architecture, optimizer, regularisation

# ---- options ----
mirror='' work=work proportion=0.1 bpe=sentencepiece embeddings=hf:bert-base-multilingual-cased methods=plain,arch
pairs='' held_out='' reverse='' normalize='' run_name='' tokenizer='' asked_beam='' asked_lenpen='' workers=$(nproc 2>/dev/null || echo 1)
more=() words=()

# shellcheck source=examples/steps.sh
. "$recipe_folder/../steps.sh"

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --reverse) reverse=1; shift; continue ;;
      --normalize) normalize=1; shift; continue ;;
      -h | --help) usage; exit 0 ;;
      --) shift; more=("$@"); break ;;
      --mirror | --translations | --pairs | --held-out | --work-dir | --bpe | --vocabulary | --embeddings | --methods | --epochs | --batch-tokens | --beam \
        | --lenpen | --average | --name | --workers | --sacrebleu-tokenize | --proportion) [ $# -gt 1 ] || stop "$1 needs a value" ;;
      -*) stop "unknown option $1 (--help lists them; options of fairseq-train go after --)" ;;
      *) words+=("$1"); shift; continue ;;
    esac
    case $1 in
      --mirror | --translations) mirror=$2 ;;
      --pairs) pairs=$2 ;;
      --held-out) held_out=$2 ;;
      --work-dir) work=$2 ;;
      --bpe) bpe=$2 ;;
      --vocabulary) vocabulary=$2 ;;
      --embeddings) embeddings=$2 ;;
      --methods) methods=$2 ;;
      --epochs) epochs=$2 ;;
      --batch-tokens) batch_tokens=$2 ;;
      --beam) asked_beam=$2 ;;
      --lenpen) asked_lenpen=$2 ;;
      --average) average=$2 ;;
      --name) run_name=$2 ;;
      --proportion) proportion=$2 ;;
      --sacrebleu-tokenize) tokenizer=$2 ;;
      --workers) workers=$2 ;;
    esac
    shift 2
  done
  if [ -n "$reverse" ]; then beam=${reverse_beam:-$beam} lenpen=${reverse_lenpen:-$lenpen}; fi
  beam=${asked_beam:-$beam} lenpen=${asked_lenpen:-$lenpen}
}

# How validation translates: as the test set will be; max_len: fairseq's examples/translation/README.md
validation_search() {
  local penalty=$lenpen
  if [ "$penalty" = tuned ]; then penalty=1.0; fi
  echo "{\"beam\": $beam, \"lenpen\": $penalty, \"max_len_a\": 1.2, \"max_len_b\": 10}"
}

check() {
  local option
  [[ $proportion =~ ^(1|0?\.[0-9]+)$ ]] || stop "--proportion must be in (0, 1], such as 0.1, got $proportion"
  for option in vocabulary epochs beam workers pairs held_out; do
    if [[ $option = pairs || $option = held_out ]] && [ -z "${!option}" ]; then continue; fi
    [[ ${!option} =~ ^[1-9][0-9]*$ ]] || stop "--$option must be a positive number, got ${!option}"
  done
  [[ -z $pairs$held_out || $corpus = debian-* ]] || stop "--pairs and --held-out are for the recipes debian-LANG-en: published sets stay whole"
  [[ $average =~ ^[0-9]+$ ]] || stop "--average must be a number, got $average"
  [[ $lenpen =~ ^(tuned|[0-9]+(\.[0-9]+)?)$ ]] || stop "--lenpen must be a number or tuned, got $lenpen"
  [[ $bpe = sentencepiece || $bpe = subword-nmt ]] || stop "--bpe must be sentencepiece or subword-nmt, got $bpe"
  [[ $methods =~ ^[a-z0-9_]+(,[a-z0-9_]+)*$ ]] || stop "--methods must be a comma list such as plain,arch, got $methods"
  if [ -n "$mirror" ] && [[ $mirror != *://* ]]; then
    [ -d "$mirror" ] || stop "--mirror $mirror is neither a folder nor an address"
    mirror=$(cd "$mirror" && pwd)
  fi
}

# ---- where things are; a file or folder under its own name is complete ----

place() {
  corpus+=${pairs:+-$pairs}${held_out:+-held-out-$held_out}
  mkdir -p "$work/$corpus"
  work=$(cd "$work" && pwd)
  base=$work/$corpus
  languages=("$source" "$target") # of the corpus, whatever the direction
  if [ -n "$reverse" ]; then read -r source target <<<"$target $source"; fi
  text=$base/text${normalize:+-normalized}
  data=$base/$bpe-$vocabulary${normalize:+-normalized}
  runs=$data/runs/$source-$target
}

neighbor_file() {
  local embedded=${embeddings##*/} share=''
  if [ "$proportion" != 0.1 ]; then share=-proportion$proportion; fi
  echo "$data/neighbors-$source-$target-${embedded//:/-}$share-seed$1.safetensors"
}
run_folder() { echo "$runs/$1-seed$2"; }

# shellcheck source=examples/translation/prepare.sh
. "$recipe_folder/prepare.sh"

# ---- neighbors, train, evaluate ----

neighbors() {
  prepared
  local seed=$1 file
  file=$(neighbor_file "$seed")
  if [ -f "$file" ]; then return; fi
  say "neighbors of $source-$target, seed $seed, by $embeddings"
  # 10 % cached unless --proportion says otherwise, K = 1: ARCH, appendix B.1; the file holds 5 so that other K can be tried
  fairseq-adv neighbors "$data/bin" --source-lang "$source" --target-lang "$target" --output "$file" \
    --embeddings "$embeddings" --proportion "$proportion" --num-neighbors 5 --seed "$seed" --remove-bpe "${bpe//-/_}" >&2
}

train() {
  prepared
  local method=$1 seed=$2 run objective device=(--cpu) keep=(--no-epoch-checkpoints) share=() settings
  run=$(run_folder "${run_name:-$method}" "$seed")
  objective=(--criterion "${method}_label_smoothed")
  if [ "$method" = plain ]; then objective=(--criterion label_smoothed_cross_entropy); fi
  if [ "$method" = arch ]; then
    neighbors "$seed"
    objective+=(--cache-neighbors "$(neighbor_file "$seed")" --cache-proportion "$proportion")
  fi
  if [ "$average" -gt 0 ]; then keep=(--keep-last-epochs "$average"); fi
  share=(--share-decoder-input-output-embed)
  if [ -n "$joined_dictionary" ]; then share=(--share-all-embeddings); fi
  if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then device=(--fp16); fi

  settings="$method $seed $epochs $batch_tokens $average ${more[*]}"
  if [ "$method" = arch ]; then settings+=" $embeddings"; fi
  if [ "$method" = arch ] && [ "$proportion" != 0.1 ]; then settings+=" $proportion"; fi
  begin_run "$run" "$settings"
  if [ -f "$run/done" ]; then return; fi
  printf '{"method": "%s", "seed": %d}\n' "${run_name:-$method}" "$seed" >"$run/run.json"
  say "training $method, seed $seed, $epochs epochs: $run/train.log"
  # --required-batch-size-multiple 1: with fairseq's default of 8 the last batch of each set is dropped
  fairseq-train "$data/bin" --user-dir "$(fairseq-adv user-dir)" --task adversarial_translation \
    --source-lang "$source" --target-lang "$target" "${objective[@]}" "${share[@]}" "${train_options[@]}" \
    --max-tokens "$max_tokens" --target-batch-tokens "$batch_tokens" --required-batch-size-multiple 1 \
    --max-epoch "$epochs" --seed "$seed" --save-dir "$run/checkpoints" "${keep[@]}" \
    --eval-bleu-remove-bpe "${bpe//-/_}" --eval-bleu-detok-args "{\"target_lang\": \"$target\"}" \
    --eval-bleu-args "$(validation_search)" --log-format json --log-interval 50 "${device[@]}" "${more[@]}" \
    >>"$run/train.log" 2>&1 \
    || { tail -n 5 "$run/train.log" >&2; stop "training failed: see $run/train.log; the same command goes on from the last epoch"; }
  touch "$run/done"
}

score() {
  local run=$1 options=(--beam "$beam" --pair "$source-$target" --remove-bpe "${bpe//-/_}" --tokenized)
  [ -f "$run/done" ] || stop "$run is not trained to its end: run the step train first"
  if [ -n "$lowercase" ]; then options+=(--lowercase); fi
  if [ -n "$tokenizer" ]; then options+=(--sacrebleu-tokenize "$tokenizer"); fi
  if [ "$lenpen" != tuned ]; then options+=(--lenpen "$lenpen"); fi
  if [ "$average" -gt 0 ]; then
    if [ ! -f "$run/checkpoints/average.pt" ] || [ "$run/done" -nt "$run/checkpoints/average.pt" ]; then
      python "$scripts/average_checkpoints.py" --last-epochs "$average" --inputs "$run/checkpoints" \
        --output "$run/checkpoints/average.pt" >&2
    fi
    options+=(--checkpoint average.pt)
  fi
  echo "$(basename "$run") ($source-$target)"
  bash "$scripts/evaluate_run.sh" "$data/bin" "$run" "$text/raw" "${options[@]}"
}

evaluate_all() {
  local file finished
  find_finished
  for file in "${finished[@]}"; do score "$file"; done
  fairseq-adv report "${finished[@]}" --output "$data/report-$source-$target" --title "$corpus, $source-$target"
}

recipe() {
  parse "$@"
  check
  run_step fairseq,knn,bert,report
}
