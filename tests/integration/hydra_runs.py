"""The recipes' YAML configurations in tests: composed as fairseq-hydra-train composes them, and their shell twins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

from tests.integration.running import ROOT

FOLDER = ROOT / "examples/translation"
CONFIG = FOLDER / "config"

# stands in for what the script would start: the words of fairseq-train go to a file, one behind a zero byte each
TRAIN = r"""
folder=$(dirname "$1")
. <(sed -e '/^recipe "\$@"/d' -e 's#"$(dirname "${BASH_SOURCE\[0\]}")/recipe.sh"#"$folder/recipe.sh"#' "$1")
neighbors() { :; }
python() { :; }  # "is there a GPU?": yes
fairseq-adv() { echo "$root/fairseq_adv"; }
fairseq-train() { printf '%s\0' "$@" >"$output"; }
work=$2 output=$4
place
mkdir -p "$data/bin"
train "$3" 1
"""


def shell_words(recipe: str, method: str, folder: Path) -> List[str]:
    """What ``RECIPE.sh --work-dir FOLDER/work train METHOD 1`` gives to fairseq-train on a machine with a GPU."""
    words = folder / f"{recipe}-{method}"
    arguments = [str(FOLDER / f"{recipe}.sh"), str(folder / "work"), method, str(words)]
    done = subprocess.run(["bash", "-c", TRAIN, "bash", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return words.read_text(encoding="utf-8").split("\0")[:-1]


def parsed(words: List[str]) -> Any:
    """The configuration that fairseq's own command-line parser makes of *words*."""
    from fairseq import options
    from fairseq.dataclass.initialize import add_defaults
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    args = options.parse_args_and_arch(options.get_training_parser(), input_args=words)
    cfg = convert_namespace_to_omegaconf(args)
    add_defaults(cfg)
    return cfg


def composed(monkeypatch: Any, recipe: str, *overrides: str) -> List[Any]:
    """The configurations that ``fairseq-hydra-train`` trains with; more than one of a sweep (``--multirun``)."""
    import fairseq.distributed.utils
    from fairseq.dataclass.initialize import add_defaults
    from fairseq_cli import hydra_train

    found: List[Any] = []
    monkeypatch.setattr(fairseq.distributed.utils, "call_main", lambda cfg, main: found.append(cfg))
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]
    words = ["fairseq-hydra-train", "--config-dir", str(CONFIG), "--config-name", recipe]
    monkeypatch.setattr(sys, "argv", [*words, *overrides, *quiet])
    hydra_train.cli_main()
    for cfg in found:
        add_defaults(cfg)
    return found


def flat(section: Any) -> Dict[str, Any]:
    """The options of one section as plain values."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(section, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(name): str(value) if name == "adam_betas" else value for name, value in values.items()}
