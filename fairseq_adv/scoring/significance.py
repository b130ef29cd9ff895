"""Are two systems different? Paired bootstrap over sentences, mean and deviation over seeds.

Each argument is a run folder in which ``fairseq-adv score --output`` left ``score.json``, ``test.hyp`` and
``test.ref``. Runs are grouped into systems by the method in ``run.json`` (without it, by the folder's name without
``-seedN``), or explicitly: ``NAME=FOLDER``.

For each system: mean ± standard deviation (n − 1) of BLEU and chrF over its runs. For each seed that a system
shares with the baseline: sacreBLEU's paired bootstrap (Koehn 2004), 1000 resamples of the test sentences; p is
the probability of a difference as large if the systems were equal. A bootstrap tells whether the difference would
hold on other sentences; the deviation over seeds tells whether it would hold for another training. Both matter.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from fairseq_adv.corpora.lines import all_lines
from fairseq_adv.scoring.intervals import difference_interval
from fairseq_adv.scoring.languages import DEFAULT

UNTRAINED = 2.0  # BLEU below which outputs share single words with the references, and differences say nothing
METRICS = ("bleu", "chrf")


class System(NamedTuple):
    """One trained and scored system."""

    method: str
    seed: int
    scores: Dict[str, float]  # metric -> score
    hypotheses: List[str]
    references: List[str]
    tokenizer: str = DEFAULT  # of BLEU
    lowercase: bool = False


def read_system(argument: str) -> System:
    """A run folder, or ``NAME=FOLDER``."""
    name, _, folder_name = argument.rpartition("=")
    folder = Path(folder_name)
    if not (folder / "score.json").is_file():
        raise FileNotFoundError(f"{folder} has no score.json: score it first, fairseq-adv score … --output {folder}")
    told = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
    match = re.fullmatch(r"(.*?)[-_.]?seed[-_]?(\d+)", folder.name)
    method = name or told.get("method") or (match[1] if match else folder.name)
    seed = told.get("seed", int(match[2]) if match else 1)
    result = json.loads((folder / "score.json").read_text())
    scores = {metric: float(result[metric]) for metric in METRICS}
    texts = all_lines(folder / "test.hyp"), all_lines(folder / "test.ref")
    signature = str(result.get("bleu_signature", ""))
    tokenizer = result.get("sacrebleu_tokenize") or _from_signature(signature, "tok", DEFAULT)
    return System(method, int(seed), scores, *texts, tokenizer, _from_signature(signature, "case", "mixed") == "lc")


def _from_signature(signature: str, key: str, default: str) -> str:
    """What sacreBLEU's signature, such as ``nrefs:1|case:lc|tok:13a``, says for *key*."""
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part).get(key, default)


def check_comparable(systems: Sequence[System]) -> None:
    """All on the same references, and no seed of a method twice."""
    for system in systems[1:]:
        if system.references != systems[0].references:
            raise ValueError(
                f"{system.method} (seed {system.seed}) was scored on other references than "
                f"{systems[0].method} (seed {systems[0].seed}): only systems on the same test set can be compared"
            )
        how, first = (system.tokenizer, system.lowercase), (systems[0].tokenizer, systems[0].lowercase)
        if how != first:
            raise ValueError(
                f"{system.method} (seed {system.seed}) was scored with tokeniser {how[0]}, lower case {how[1]}, but "
                f"{systems[0].method} (seed {systems[0].seed}) with {first[0]}, {first[1]}: score them alike"
            )
    keys = [(system.method, system.seed) for system in systems]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise ValueError(f"{twice[0]} with seed {twice[1]} was given twice: name them apart with NAME=FOLDER")


def paired_bootstrap(baseline: System, system: System, samples: int) -> Dict[str, Dict[str, float]]:
    """sacreBLEU's paired bootstrap: for each metric the difference to the baseline, p value and 95 % interval."""
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    references, lowercase = [baseline.references], baseline.lowercase
    bleu = BLEU(tokenize=baseline.tokenizer, references=references, lowercase=lowercase)
    chrf = CHRF(references=references, lowercase=lowercase)
    test = PairedTest(
        [("baseline", baseline.hypotheses), ("system", system.hypotheses)],
        {"BLEU": bleu, "CHRF": chrf},
        references=None,
        test_type="bs",
        n_samples=samples,
    )
    results: Dict[str, Any] = test()[1]
    named = zip(METRICS, (results[key] for key in results if key != "System"))
    found = {metric: {"difference": b.score - a.score, "p": float(b.p_value)} for metric, (a, b) in named}
    for metric, scorer in (("bleu", bleu), ("chrf", chrf)):
        bounds = difference_interval(scorer, baseline.hypotheses, system.hypotheses, baseline.references, samples)
        found[metric]["low"], found[metric]["high"] = bounds
    return found


def summary(systems: Sequence[System], baseline: str, samples: int) -> List[Dict[str, Any]]:
    """One row for each method, the baseline first."""
    by_method: Dict[str, List[System]] = {}
    for system in systems:
        by_method.setdefault(system.method, []).append(system)
    if baseline not in by_method:
        raise ValueError(f"--baseline {baseline} is none of the systems: {', '.join(by_method)}")
    base = {system.seed: system for system in by_method[baseline]}
    rows = []
    for method in sorted(by_method, key=lambda name: name != baseline):
        row: Dict[str, Any] = {"method": method, "seeds": sorted(system.seed for system in by_method[method])}
        for metric in METRICS:
            values = [system.scores[metric] for system in by_method[method]]
            row[metric] = statistics.mean(values)
            row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        row["paired"] = {
            system.seed: paired_bootstrap(base[system.seed], system, samples)
            for system in by_method[method]
            if method != baseline and system.seed in base
        }
        rows.append(row)
    return rows


def format_rows(rows: Sequence[Dict[str, Any]], baseline: str) -> str:
    """A Markdown table; p values one for each seed, in the order of seeds."""

    def spread(row: Dict[str, Any], metric: str) -> str:
        sd = row[f"{metric}_sd"]
        return f"{row[metric]:.2f}" + (f" ± {sd:.2f}" if sd is not None else "")

    def p_values(row: Dict[str, Any], metric: str) -> str:
        return ", ".join(f"{row['paired'][seed][metric]['p']:.3f}" for seed in sorted(row["paired"])) or "–"

    def differences(row: Dict[str, Any], metric: str) -> str:
        found = [row["paired"][seed][metric] for seed in sorted(row["paired"])]
        return ", ".join(f"{one['difference']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}]" for one in found) or "–"

    columns = ("method", "seeds", *(name for metric in ("BLEU", "chrF") for name in (metric, f"− {baseline}", "p")))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [row["method"], ", ".join(map(str, row["seeds"]))]
        for metric in METRICS:
            cells += [spread(row, metric), differences(row, metric), p_values(row, metric)]
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        f"− {baseline} and p: paired bootstrap against {baseline}, one value for each shared seed, with 95 % intervals"
    )
    return "\n".join([*lines, "", note, *(in_words(row, baseline) for row in rows if row["paired"])])


def in_words(row: Dict[str, Any], baseline: str) -> str:
    """What the intervals of one method's BLEU allow to say, and what not."""
    method, found = row["method"], [row["paired"][seed]["bleu"] for seed in sorted(row["paired"])]
    if row["bleu"] < UNTRAINED and all(row["bleu"] - one["difference"] < UNTRAINED for one in found):
        return (
            f"{method} and {baseline} are below {UNTRAINED:g} BLEU: neither has learnt to translate yet; train longer."
        )
    above, below = sum(one["low"] > 0 for one in found), sum(one["high"] < 0 for one in found)
    count = "this seed" if len(found) == 1 else f"all {len(found)} seeds"
    if above == len(found):
        verdict = f"is above {baseline} in BLEU in {count}: no interval holds zero"
    elif below == len(found):
        verdict = f"is below {baseline} in BLEU in {count}: no interval holds zero"
    elif above or below:
        verdict = f"is above {baseline} in BLEU in {above} and below it in {below} of {len(found)} seeds: no answer"
    else:
        return f"{method} cannot be told from {baseline} in BLEU by these test sentences."
    caution = " It is about these trainings; another seed may differ." if len(found) == 1 else ""
    return f"{method} {verdict}.{caution}"
