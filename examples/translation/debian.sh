# shellcheck shell=bash disable=SC2034,SC2154
# What the recipes debian-LANG-en.sh share, sourced after recipe.sh: text, model, optimizer and search. All of it is ours.
#
# Descriptions of Debian's packages and their translations, fetched by apt's own client from wherever this system's
# packages come from, as any user; no step of it touches the system's own state. --translations DIR takes the indexes
# from a folder instead. No text of a source package, no sentence and no template of the test set occurs in training
# (fairseq_adv/corpora/debian_split.py); 2,000 pairs each validate and test.

target=en
max_length=175 length_ratio=2.5 valid_every=0
vocabulary=8000 joined_dictionary=1
batch_tokens=16k max_tokens=4096
beam=5 lenpen=tuned    # on the validation set for each method: consistency training shortens translations
epochs=100
train_options=(
  --arch transformer_iwslt_de_en --dropout 0.3 --weight-decay 0.0001 --clip-norm 1.0 --label-smoothing 0.1
  --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --warmup-updates 2000 --lr 0.001
  --eval-bleu --eval-bleu-detok moses --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
  --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}'
)

fetch_text() {
  if [ -d "$base/plain" ]; then return; fi
  [[ $mirror != *://* ]] || stop "--translations takes a folder of an archive's indexes, got $mirror"
  fairseq-adv corpus debian --language "$language" --output "$base/plain" --download "$base/download" \
    ${mirror:+--translations "$mirror"} ${pairs:+--pairs "$pairs"} ${held_out:+--valid "$held_out" --test "$held_out"} >&2
}
