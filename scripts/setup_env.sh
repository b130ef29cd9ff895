# shellcheck shell=bash
# Sourced, not run:
#
#     . scripts/setup_env.sh
#     setup_env fairseq,knn,bert,report
#
# setup_env EXTRAS leaves a virtual environment active in which this package is installed editable with
# these extras: the environment that is active already, else .venv at the root of the repository (created
# when it is missing). What is in place is not installed again: a stamp inside the environment remembers
# the checkout, a hash of setup.py and the extras. All messages go to stderr.
#
# PYTHON           interpreter for a new environment (default: a Python that fairseq has a ready wheel for)
# TORCH_VERSION    torch for a machine that has none and no GPU (default below; tested with it)

SETUP_ENV_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SETUP_ENV_TORCH="${TORCH_VERSION:-2.13.0}"

setup_env() {
  local extras="${1:?setup_env: name the extras, for example fairseq,knn}"
  _setup_env_activate || return 1
  local stamp="$VIRTUAL_ENV/.fairseq-adv-setup" state
  state="$SETUP_ENV_ROOT $(_setup_env_hash)"
  if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$state" ] && grep -qxF "$extras" "$stamp"; then
    return 0
  fi
  _setup_env_say "installing fairseq-adv[$extras] into $VIRTUAL_ENV"
  _setup_env_torch && _setup_env_fairseq "$extras" \
    && _setup_env_pip --editable "${SETUP_ENV_ROOT}[$extras]" || return 1
  if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$state" ]; then
    echo "$state" >"$stamp"
  fi
  echo "$extras" >>"$stamp"
}

_setup_env_say() { echo "setup: $*" >&2; }

_setup_env_pip() { python -m pip install -qq --disable-pip-version-check "$@" >&2; }

_setup_env_hash() {
  python - "$SETUP_ENV_ROOT/setup.py" <<'PY'
import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())
PY
}

_setup_env_activate() {
  if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    PATH="$VIRTUAL_ENV/bin:$PATH"
    return 0
  fi
  local venv="$SETUP_ENV_ROOT/.venv" python
  if [ ! -x "$venv/bin/python" ]; then
    python="$(_setup_env_python)" || return 1
    _setup_env_say "creating $venv with $("$python" --version 2>&1)"
    if ! "$python" -m venv "$venv" >&2; then
      rm -rf "$venv"
      _setup_env_say "$python cannot create virtual environments; on Debian and Ubuntu install python3-venv"
      return 1
    fi
  fi
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
}

# The first interpreter with a ready-made fairseq wheel (3.11 and 3.12), else any from 3.9 on.
_setup_env_python() {
  local candidate range
  for range in "(3, 11) <= sys.version_info[:2] <= (3, 12)" "sys.version_info >= (3, 9)"; do
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10 python3.9}; do
      if "$candidate" -c "import sys; sys.exit(not $range)" 2>/dev/null; then
        echo "$candidate"
        return 0
      fi
    done
  done
  _setup_env_say "no Python >= 3.9 found; install one or name it: PYTHON=/path/to/python3 bash $0"
  return 1
}

# torch comes first: without a GPU the CPU build is several GB smaller, and pip must not replace what is there.
_setup_env_torch() {
  if python -c "import torch" 2>/dev/null; then
    return 0
  fi
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    _setup_env_pip "torch>=$SETUP_ENV_TORCH"
  else
    _setup_env_pip "torch==$SETUP_ENV_TORCH" || _setup_env_pip torch # no such build for this interpreter
  fi
}

# Where fairseq has no ready wheel it is built from source, against the torch and numpy of this environment.
_setup_env_fairseq() {
  case ",$1," in *,fairseq,*) ;; *) return 0 ;; esac
  if python -c "import importlib.util as u, sys; sys.exit(u.find_spec('fairseq') is None)"; then
    return 0
  fi
  if python -c "import sys; sys.exit(sys.version_info >= (3, 11))"; then
    _setup_env_pip "pip<24.1" # later ones refuse the metadata of the omegaconf 2.0 that fairseq 0.12.2 needs
  elif ! python -c "import platform, sys; sys.exit((platform.system(), platform.machine()) != ('Linux', 'x86_64')
or sys.version_info >= (3, 13))"; then
    _setup_env_say "building fairseq from source, this takes minutes and needs a C++ compiler"
    _setup_env_pip "setuptools<81" wheel cython numpy && _setup_env_pip --no-build-isolation "fairseq-fixed==0.12.3.1"
  fi
}
