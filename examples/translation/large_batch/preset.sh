# shellcheck shell=bash
# Sourced by the presets beside this file, which all work alike:
#
#   bash 400k.sh DATA SAVE_DIR [OPTIONS] -- --max-update N [MORE FAIRSEQ-TRAIN OPTIONS]
#
#   DATA                    folder that fairseq-preprocess wrote, with one dictionary where the preset shares embeddings
#   --method plain          or a criterion of this project without its ending _label_smoothed, such as scala
#   --precision fp16        or bf16, fp32
#   --gpus 8                processes on this node (default: its GPUs, at least 1)
#   --nodes 4 --node-rank 0 --master HOST[:PORT]
#                           on every node of several, with its own rank from 0; HOST is the node of rank 0
#   --print                 show the command and stop
#
# The batch is the preset's on any number of GPUs and nodes. Later options win: --target-batch-tokens 200k after -- is
# that batch at a learning rate √(200k / the preset's) times the preset's, --max-tokens fits the memory of the GPUs. The
# sources name no number of updates that would fit every corpus, so --max-update or --max-epoch has to be given.

preset_fail() { echo "$(basename "$0"): $*" >&2; exit 2; }
preset_usage() { sed -n '/^#   bash/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# launch OPTIONS…: train with the preset's batch_tokens, lr, warmup_updates, warmup_init_lr, max_tokens and train_options
launch() {
  [ $# -gt 0 ] && [ "$1" != --help ] || { preset_usage; exit 0; }
  [ $# -ge 2 ] || preset_fail "give DATA and SAVE_DIR (--help tells more)"
  local data=$1 save_dir=$2 method=plain precision=fp16 gpus='' nodes=1 node_rank='' master='' print=''
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift; break ;;
      --print) print=1; shift; continue ;;
      --method | --precision | --gpus | --nodes | --node-rank | --master) [ $# -gt 1 ] || preset_fail "$1 needs a value" ;;
      *) preset_fail "unknown option $1 (options of fairseq-train go after --)" ;;
    esac
    case $1 in
      --method) method=$2 ;;
      --precision) precision=$2 ;;
      --gpus) gpus=$2 ;;
      --nodes) nodes=$2 ;;
      --node-rank) node_rank=$2 ;;
      --master) master=$2 ;;
    esac
    shift 2
  done
  [[ " $* " =~ \ --max-(update|epoch)[\ =] ]] || preset_fail "say when to stop, such as -- --max-update 50000"
  local criterion=label_smoothed_cross_entropy half=()
  if [ "$method" != plain ]; then criterion=${method}_label_smoothed; fi
  case $precision in
    fp16 | bf16) half=("--$precision") ;;
    fp32) ;;
    *) preset_fail "--precision must be fp16, bf16 or fp32, got $precision" ;;
  esac
  preset_processes
  # shellcheck disable=SC2154  # the preset sets these
  "${run[@]}" "$data" --save-dir "$save_dir" --user-dir "$(fairseq-adv user-dir)" --task adversarial_translation \
    --criterion "$criterion" --label-smoothing 0.1 --target-batch-tokens "$batch_tokens" --max-tokens "$max_tokens" \
    --required-batch-size-multiple 1 --lr "$lr" --lr-scheduler inverse_sqrt_batch --lr-base-batch-tokens "$batch_tokens" \
    --lr-batch-power 0.5 --lr-warmup-updates "$warmup_updates" --lr-warmup-init-lr "$warmup_init_lr" \
    "${train_options[@]}" "${half[@]}" "$@"
}

# run: the words that start fairseq-train on this node, or show what would be started
preset_processes() {
  if [ -z "$gpus" ]; then
    gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU') || gpus=1
  fi
  [[ $gpus =~ ^[1-9][0-9]*$ ]] || preset_fail "--gpus must be a positive number, got $gpus"
  [[ $nodes =~ ^[1-9][0-9]*$ ]] || preset_fail "--nodes must be a positive number, got $nodes"
  local train
  train=$(command -v fairseq-train) || preset_fail "no fairseq-train: activate the environment first"
  run=("$train")
  if [ "$nodes" -gt 1 ]; then
    [[ $node_rank =~ ^[0-9]+$ ]] && [ "$node_rank" -lt "$nodes" ] \
      || preset_fail "--nodes $nodes needs --node-rank 0 to $((nodes - 1)), got ${node_rank:-none}"
    [ -n "$master" ] || preset_fail "--nodes $nodes needs --master HOST[:PORT], the node of rank 0"
    local port=29500
    if [[ $master == *:* ]]; then port=${master##*:}; fi
    run=(torchrun --nnodes "$nodes" --node_rank "$node_rank" --nproc_per_node "$gpus"
      --master_addr "${master%:*}" --master_port "$port" "$train")
  elif [ "$gpus" -gt 1 ]; then
    run=(torchrun --standalone --nproc_per_node "$gpus" "$train")
  fi
  if [ -n "$print" ]; then run=(preset_show "${run[@]}"); fi
}

# preset_show WORDS…: one line that a shell reads back as these words
preset_show() { printf '%q ' "$@"; echo; }
