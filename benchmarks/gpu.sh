#!/usr/bin/env bash
# Everything that needs a GPU, in runs of at most 8 minutes each, ending in one table and one JSON.
#
#   bash benchmarks/gpu.sh --dry-run                  # the runs, one a line, without doing any
#   bash benchmarks/gpu.sh --output gpu-results       # all of them; a run whose result lies there is not repeated
#   bash benchmarks/gpu.sh --only peers-base-fp16 --output gpu-results
#
# The last lines are the table; it is kept in OUTPUT/gpu.md, its figures in OUTPUT/gpu.json. A run that fails or takes
# too long is named there, and tried again by the next call. --device cpu --tiny runs the whole way on a CPU with sizes
# that mean nothing.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
output=gpu-results device=cuda dry_run="" tiny="" only="" limit=480
usage="usage: bash benchmarks/gpu.sh [--dry-run] [--output DIR] [--device cuda|cpu] [--tiny] [--only NAME]"
while (($#)); do
  case "$1" in
    --dry-run) dry_run=1 ;;
    --tiny) tiny=1 ;;
    --output | --device | --only)
      (($# > 1)) || { echo "$1 needs a value; $usage" >&2; exit 2; }
      case "$1" in --output) output="$2" ;; --device) device="$2" ;; --only) only="$2" ;; esac
      shift
      ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "unknown option $1; $usage" >&2; exit 2 ;;
  esac
  shift
done
case "$device" in cuda | cpu) ;; *) echo "--device must be cuda or cpu, got $device" >&2; exit 2 ;; esac
if [[ -z "$dry_run" && "$device" == cuda ]] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch sees no GPU: run this where there is one, or look at it with --dry-run or --device cpu --tiny" >&2
  exit 2
fi

# run NAME COMMAND…: one run, its JSON in OUTPUT/NAME.json; COMMAND gets "--json FILE", or writes JSON itself where NAME
# begins with optimizer
run() {
  local name="$1" words json="$output/$1.json"
  shift
  [[ -z "$only" || "$only" == "$name" ]] || return 0
  words=(timeout "$limit" "$@" --json)
  [[ "$name" == optimizer* ]] || words+=("$json.part")
  if [[ -n "$dry_run" ]]; then
    printf '%s:' "$name"
    printf ' %q' "${words[@]}"
    printf '\n'
    return 0
  fi
  if [[ -e "$json" ]]; then
    echo "$name: is there" >&2
    return 0
  fi
  echo "$name: begins" >&2
  rm -f "$output/$name.failed"
  local status=0
  if [[ "$name" == optimizer* ]]; then
    "${words[@]}" >"$json.part" 2>"$output/$name.log" || status=$?
  else
    "${words[@]}" >"$output/$name.log" 2>&1 || status=$?
  fi
  if ((status == 0)); then
    mv "$json.part" "$json"
  else
    echo "$status" >"$output/$name.failed"
    echo "$name: failed with status $status ($(tail -n 1 "$output/$name.log"))" >&2
  fi
}

step_time=(python "$here/step_time.py" --device "$device")
peers=(python "$here/peers.py" --device "$device")
cheap=(r3f rdrop simcut vat disadv "scala kl" "scala ce")
ascents=("smart S=3" "freelb K=3" freeat "conadv lookahead" "conadv shifted")
arch=("arch refresh S=3" "arch refresh, last pass" "arch refresh, cached pairs" "arch cached")
passes=("arch cached, half of the rows" "arch cached, recompute" "arch cached, concat" "arch cached, detached"
  "arch cached, perturbed")
[[ -n "$dry_run" ]] || mkdir -p "$output"

if [[ -n "$tiny" ]]; then
  small=(--size tiny --words 30 --pairs 12 --max-tokens 100 --rounds 2 --threads 1)
  run step-tiny-fp32 "${step_time[@]}" "${small[@]}" --no-memory --methods r3f "arch refresh, cached pairs"
  run peers-tiny-fp32 "${peers[@]}" "${small[@]}" --methods rdrop simcut
else
  # time, passes and memory of every method
  for size in base big; do
    for precision in fp16 bf16 amp; do
      setting=(--size "$size" --precision "$precision" --max-tokens 4096 --words 32000 --pairs 1200 --rounds 20)
      run "step-$size-$precision-cheap" "${step_time[@]}" "${setting[@]}" --methods "${cheap[@]}"
      run "step-$size-$precision-ascents" "${step_time[@]}" "${setting[@]}" --methods "${ascents[@]}"
      run "step-$size-$precision-arch" "${step_time[@]}" "${setting[@]}" --fused --methods "${arch[@]}"
      run "step-$size-$precision-passes" "${step_time[@]}" "${setting[@]}" --methods "${passes[@]}"
    done
  done
  # a small vocabulary; whether the look-ahead overlaps where the GPU is not full
  run step-base-fp16-4k "${step_time[@]}" --fused --words 4000 --size base --precision fp16 --max-tokens 4096 --pairs 1200 --rounds 20 \
    --methods r3f rdrop "${arch[@]}"
  run overlap-base-fp16 "${step_time[@]}" --size base --precision fp16 --max-tokens 512 --words 32000 --pairs 160 \
    --rounds 30 --no-memory --methods disadv "conadv lookahead" "conadv shifted"
  # against the public computation
  for precision in fp16 amp; do
    run "peers-base-$precision" "${peers[@]}" --size base --precision "$precision" --max-tokens 4096 --pairs 1200
  done
  run optimizer-step python "$here/optimizer_step.py" --device "$device" --rounds 30
fi
[[ -z "$dry_run" ]] || exit 0

# where an update waits for the GPU: torch's own warnings, counted against plain training
if [[ "$device" == cuda && -z "$only" ]]; then
  echo "synchronisations: begins" >&2
  timeout "$limit" python -m pytest -q "$here/../tests/integration/test_waiting_reads.py" \
    -k torch_sees_no_synchronisation >"$output/synchronisations.log" 2>&1 \
    && rm -f "$output/synchronisations.failed" || echo "$?" >"$output/synchronisations.failed"
fi
python "$here/gpu_table.py" "$output"
