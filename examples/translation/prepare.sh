# shellcheck shell=bash
# The step prepare of the recipes of this folder, sourced by recipe.sh: from a corpus's files to binarised text. What a
# recipe's fetch_text calls is here too.
# shellcheck disable=SC2154,SC2034 # what is not assigned or used here is there

# fetch NAME=URL…: into $base/download
fetch() {
  python "$scripts/fetch_corpus.py" --output "$base/download" ${mirror:+--mirror "$mirror"} "$@" >/dev/null
}

# unpack ARCHIVE FOLDER PATTERN…: from $base/download to $base/FOLDER
unpack() {
  local archive=$1 folder=$2
  shift 2
  if [ -d "$base/$folder" ]; then return; fi
  python "$scripts/extract_archive.py" "$base/download/$archive" --output "$base/$folder" "$@"
}

# parallel_text FOLDER SET=PATH…: one sentence a line, in $base/plain or, for a corpus of tokens, $base/published
parallel_text() {
  local folder=$1 output=$base/plain set sets=()
  shift
  if [ -z "$moses" ]; then output=$base/published; fi
  if [ -d "$output" ]; then return; fi
  for set in "$@"; do sets+=(--set "$set"); done
  python "$scripts/corpus_text.py" "$base/$folder" --languages "${languages[@]}" --output "$output" \
    ${plain_apostrophes:+--plain-apostrophes} "${sets[@]}" >&2
}

tokens() {
  local tokenize=(python "$scripts/tokenize_text.py") pair=(--languages "${languages[@]}" --workers "$workers")
  if [ -z "$moses" ] && [ ! -d "$base/plain" ]; then
    "${tokenize[@]}" "$base/published" "${pair[@]}" --output "$base/plain" --detokenize
  fi
  tokenized=$base/published
  if [ -n "$moses" ]; then
    tokenized=$base/tokenized${normalize:+-normalized}
    if [ ! -d "$tokenized" ]; then
      "${tokenize[@]}" "$base/plain" "${pair[@]}" --output "$tokenized" \
        ${lowercase:+--lowercase} ${normalize:+--normalize}
    fi
  fi
}

binarise() {
  local joined=()
  if [ -n "$joined_dictionary" ]; then joined=(--joined-dictionary); fi
  rm -rf "$data/bin.partial"
  fairseq-preprocess --source-lang "${languages[0]}" --target-lang "${languages[1]}" "${joined[@]}" \
    --trainpref "$data/bpe/train" --validpref "$data/bpe/valid" --testpref "$data/bpe/test" \
    --destdir "$data/bin.partial" --workers "$workers" >"$data/preprocess.log" 2>&1 \
    || { tail -n 5 "$data/preprocess.log" >&2; stop "fairseq-preprocess failed: see $data/preprocess.log"; }
  mv "$data/bin.partial" "$data/bin"
}

prepare() {
  say "fetching and checking $corpus"
  fetch_text
  if [ ! -d "$text" ]; then
    say "tokens"
    tokens
    python "$scripts/clean_pairs.py" "$tokenized" --plain "$base/plain" --languages "${languages[@]}" \
      --output "$text" --max-length "$max_length" --ratio "$length_ratio" --valid-every "$valid_every" >&2
  fi
  mkdir -p "$data"
  if [ ! -d "$data/bpe" ]; then
    say "subwords: $bpe, $vocabulary"
    python "$scripts/subwords.py" "$text" --languages "${languages[@]}" --output "$data/bpe" \
      --kind "$bpe" --vocabulary "$vocabulary"
  fi
  if [ ! -d "$data/bin" ]; then say "fairseq-preprocess"; binarise; fi
  say "prepared: $data/bin"
}

prepared() { [ -d "$data/bin" ] || stop "$data/bin is not there: run the step prepare first, with the same options"; }
