# shellcheck shell=bash
# What all recipes share, sourced by the recipe.sh of each folder: messages, and the step that is asked for. A recipe.sh
# sets recipe_folder and scripts, and defines place, prepare, run_folder, neighbors, train, score and evaluate_all.
# shellcheck disable=SC2154 # what is not assigned here is assigned there

name=$(basename "$0")
stop() { echo "$name: $*" >&2; exit 2; }
say() { echo "$name: $*" >&2; }
usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  echo
  sed -n "5,/^\$/s/^# \{0,1\}//p" "$recipe_folder/recipe.sh" | sed "s/RECIPE\.sh/$name/"
}

is_seed() { [[ $1 =~ ^[0-9]+$ ]] || stop "SEED must be a number, got $1"; }

# find_finished: the folders of all runs of this recipe that are trained to their end, in $finished
find_finished() {
  local file
  finished=()
  for file in "$runs"/*/done; do
    if [ -f "$file" ]; then finished+=("$(dirname "$file")"); fi
  done
  [ ${#finished[@]} -gt 0 ] || stop "$runs holds no finished run: run the step train first"
}

# shellcheck source=fairseq_adv/experiments/one_at_a_time.sh
. "$scripts/../fairseq_adv/experiments/one_at_a_time.sh"

# begin_run RUN SETTINGS: its folder, unless a run of other settings is there, and nobody else in it
begin_run() {
  mkdir -p "$1"
  hold "$1"
  if [ -f "$1/settings" ] && [ "$(cat "$1/settings")" != "$2" ]; then
    stop "$1 was begun with other settings ($(cat "$1/settings")): take another --name or --work-dir, or delete it"
  fi
  [ -f "$1/settings" ] || echo "$2" >"$1/settings"
}

# run_step EXTRAS THEN…: the step of $words, in an environment with EXTRAS; THEN are steps between prepare and train
run_step() {
  local extras=$1 first=(prepare "${@:2}") step=${words[0]:-} seed each
  case $step in
    neighbors | all) seed=${words[1]:-1}; is_seed "$seed" ;;
    train) [ ${#words[@]} -gt 1 ] || stop "train needs a METHOD: plain, arch, …"; seed=${words[2]:-1}; is_seed "$seed" ;;
    evaluate | folder) seed=${words[2]:-1}; is_seed "$seed" ;;
    '') usage >&2; exit 2 ;;
    *)
      [[ " ${first[*]} " == *" $step "* ]] \
        || stop "unknown step $step: $(printf '%s, ' "${first[@]}")neighbors, train, evaluate, all or folder"
      [ ${#words[@]} -eq 1 ] || stop "$step takes nothing after it, got ${words[*]:1}"
      ;;
  esac
  if [ "$step" = folder ]; then
    place
    if [ ${#words[@]} -gt 1 ]; then run_folder "${words[1]}" "$seed"; else echo "$runs"; fi
    return
  fi
  # shellcheck source=scripts/setup_env.sh
  . "$scripts/setup_env.sh"
  setup_env "$extras" || stop "the environment could not be set up: see above"
  place
  case $step in
    prepare) prepare ;;
    neighbors) neighbors "$seed" ;;
    train) train "${words[1]}" "$seed" ;;
    evaluate) if [ ${#words[@]} -gt 1 ]; then score "$(run_folder "${words[1]}" "$seed")"; else evaluate_all; fi ;;
    all)
      prepare
      for each in "${first[@]:1}"; do "$each"; done
      for each in ${methods//,/ }; do train "$each" "$seed"; done
      evaluate_all
      ;;
    *) "$step" ;;
  esac
}
