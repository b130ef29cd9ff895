"""The table of methods in ``docs/methods.md``: names, objectives and options from the code, the rest from here.

    python scripts/methods_table.py           # print the table
    python scripts/methods_table.py --write   # put it into docs/methods.md

A criterion that is registered but has no entry in :data:`ABOUT` is an error, and so is an entry without a criterion;
``tests/unit/cli/test_methods_table.py`` fails while the page is stale.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- table: scripts/methods_table.py --write -->", "<!-- end of the table -->"


class About(NamedTuple):
    """What the code does not say: the paper, the passes of one update (forward, backward), and when to use it."""

    paper: str
    passes: str
    use: str


ABOUT: Dict[str, About] = {
    "arch": About(
        "Zuo et al. 2021",
        "2F 1B; in a refresh (2+S)F 1B + S to δ",
        "worst-case perturbations at nearly R3F's price; many epochs",
    ),
    "smart": About(
        "Jiang et al. 2020", "(2+S)F 1B + S to δ", "the reference for ARCH; fine-tuning, where time is no matter"
    ),
    "r3f": About("Aghajanyan et al. 2021", "2F 1B", "the cheapest; fine-tuning from a pre-trained model"),
    "vat": About("Sato et al. 2019", "3F 1B + 1 to δ", "one step, one radius, no cache"),
    "rdrop": About("Liang et al. 2021", "2F 1B", "the strongest baseline without any perturbation"),
    "simcut": About("Gao et al. 2022", "2F 1B", "small data; words cut off instead of moved"),
    "freelb": About("Zhu et al. 2020", "KF KB", "adversarial training on the task loss, one step for all K passes"),
    "freeat": About(
        "Shafahi et al. 2019", "1F 1B for each replay", "adversarial training for free, at the price of fewer epochs"
    ),
    "disadv": About("Liu et al. 2022, the baseline", "2F 2B", "large batches; fresh perturbations"),
    "conadv": About(
        "Liu et al. 2022", "2F 1B and the ascent beside it", "large batches; the ascent off the critical path"
    ),
    "scala": About(
        "Zhang et al. 2022, our instantiation", "3F 1B + 1 to δ; 2F 2B with ce", "large batches; tiny noise, one step"
    ),
}


def rows() -> List[str]:
    """The table's lines, then the options that all share; raises ``ValueError`` where :data:`ABOUT` is out of date."""
    import fairseq_adv

    fairseq_adv.register()
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY

    from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
    from fairseq_adv.criterions.frame.config import AdversarialConfig
    from fairseq_adv.criterions.heads.sentence import SentenceHead
    from fairseq_adv.criterions.heads.translation import TranslationHead

    suffix = f"_{TranslationHead.suffix}"
    criterions = {n: c for n, c in CRITERION_REGISTRY.items() if issubclass(c, AdversarialCriterion)}
    ours = {n[: -len(suffix)]: c for n, c in criterions.items() if n.endswith(suffix)}
    differing = set(ours) ^ set(ABOUT)
    if differing:
        raise ValueError(
            f"scripts/methods_table.py and the registered criterions differ in: {', '.join(sorted(differing))}"
        )
    common = {field.name for kind in (AdversarialConfig, TranslationHead.options) for field in dataclasses.fields(kind)}
    lines = ["| method | paper | objective | passes | own options | when |", "|---|---|---|---|---|---|"]
    for name in ABOUT:
        config = CRITERION_DATACLASS_REGISTRY[name + suffix]
        options = [f.name for f in dataclasses.fields(config) if f.name not in common]
        listed = " ".join(f"`--{option.replace('_', '-')}`" for option in options) or "–"
        first_line = (ours[name].__doc__ or "").strip().splitlines()[0].rstrip(".:")
        objective = first_line.replace("|", "\\|")
        about = ABOUT[name]
        lines.append(f"| `{name}{suffix}` | {about.paper} | {objective} | {about.passes} | {listed} | {about.use} |")
    shared = " ".join(f"`--{name.replace('_', '-')}`" for name in sorted(n for n in common if n.startswith("adv_")))
    sentences = (
        f"Each is also there for sentences, as `NAME_{SentenceHead.suffix}` with the same options but "
        "`--adv-vocabulary`: [below](#sentences)."
    )
    explained = "`fairseq-adv options NAME` explains every option."
    return [*lines, "", f"Common to all: {shared}.", explained, sentences, "", *exceptions()]


def exceptions() -> List[str]:
    """The lines of the table of common options that a method does not honour."""
    from fairseq_adv.criterions.frame.honoured import NOT_HONOURED

    lines = ["| common option | refused by |", "|---|---|"]
    for option, methods in NOT_HONOURED.items():
        reasons: Dict[str, List[str]] = {}
        for entry, reason in methods.items():
            name, *settings = entry.split()
            words = [_as_words(setting) for setting in settings]
            reasons.setdefault(reason, []).append(" ".join([name, *words]))
        told = "; ".join(f"`{'`, `'.join(names)}`: {reason}" for reason, names in reasons.items())
        lines.append(f"| `--{option.replace('_', '-').replace('=', ' ')}` | {told} |")
    return lines


def _as_words(setting: str) -> str:
    """``option=value`` as it is given on a command line."""
    option, value = setting.split("=")
    name = f"--{option.replace('_', '-')}"
    return name if value == "True" else f"{name} {value}"


def with_table(page: str, table: str) -> str:
    """*page* with *table* between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description="The table of methods.")
    parser.add_argument("--write", action="store_true", help="put the table into docs/methods.md")
    args = parser.parse_args()
    table = "\n".join(rows())
    if args.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
    else:
        print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
