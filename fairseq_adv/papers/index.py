"""Every table, figure, equation and algorithm of the papers: our command or options, and its state."""

from __future__ import annotations

from typing import List, NamedTuple, Tuple


class Item(NamedTuple):
    """*ours* is a command, or options of ``fairseq-train`` (empty: there is none); *status* says the rest.

    Options without a ``--criterion`` belong to the paper's method.
    """

    item: str
    what: str
    ours: str
    status: str


_SMALL = "run on the quickstart's text, three seeds, below"
_NO_DATA = "not run: neither the corpora nor a GPU were at hand"
_NO_DATA_SMALL = f"{_NO_DATA}; small: [results.md](results.md), [unconverged.md](unconverged.md)"
_ORACLE = "tested by an oracle"
_WRITTEN = f"{_ORACLE}; not the default"
_PART = "not run as such; most of its runs are rows of conadv-table5, below"
_RECIPES = "in the recipes, tested"
_GLUE = "bash examples/sentence_prediction/glue.sh"

ARCH: Tuple[Item, ...] = (
    Item("Sec. 3", "empirical risk", "--criterion label_smoothed_cross_entropy", "fairseq's own, the baseline `plain`"),
    Item("Sec. 3.1, KL", "ℓ_v, one-sided", "--adv-divergence kl", "the default of `arch`; tested"),
    Item(
        "Sec. 3.1, regression",
        "ℓ_v = (f(x) − f(x + δ))²",
        "--criterion arch_sentence_prediction --regression-target",
        _ORACLE,
    ),
    Item("Eq. 1", "min-max at every update", "--criterion smart_label_smoothed --adv-divergence kl", _ORACLE),
    Item("Eq. 2", "objective with cached δ", "--criterion arch_label_smoothed", _ORACLE),
    Item("Eq. 2, δ", "training on the average", "--cache-train-on-average", "an option; the algorithms differ"),
    Item("Eq. 3", "δ from neighbours", "--cache-num-neighbors 1", _ORACLE),
    Item("Eq. 4", "sentence vectors", "fairseq-adv neighbors DATA --output F --embeddings hf:M", "tested"),
    Item("Algorithm 1", "caching", "--cache-interval 15 --cache-ema 0.01 --cache-proportion 1", _ORACLE),
    Item("Algorithms 2, 3", "memory saving", "--cache-proportion 0.1 --cache-neighbors F", _ORACLE),
    Item(
        "Sec. 4.1",
        "baselines",
        "python scripts/methods_table.py",
        "FreeAT, FreeLB, SMART, R3F: [methods.md](methods.md)",
    ),
    Item("Table 1", "passes of each method", "python benchmarks/step_time.py", "run, below"),
    Item("Fig. 1 left", "wall time, 150 epochs", "fairseq-adv reproduce arch-fig1 --epochs 150", _NO_DATA_SMALL),
    Item("Fig. 1 right", "wall time on SST-2", f"{_GLUE} --set glue-sst2 all", _NO_DATA),
    Item("Table 2", "BLEU, six directions", "fairseq-adv reproduce arch-table2 --corpus RECIPE", _NO_DATA_SMALL),
    Item("Table 3", "BLEU, WMT'16", "fairseq-adv reproduce arch-table3 --corpus RECIPE", _NO_DATA_SMALL),
    Item("Sec. 4.2", "176 and 576 GPU hours", "fairseq-adv reproduce arch-table3 --corpus RECIPE", _NO_DATA),
    Item("Table 4", "corpora", "bash examples/translation/iwslt14-de-en.sh prepare", "[recipes.md](recipes.md)"),
    Item("Table 5", "GLUE", f"{_GLUE} --set glue-rte all", _NO_DATA),
    Item("Table 6", "ANLI", "bash examples/sentence_prediction/anli.sh all", _NO_DATA),
    Item("Fig. 2a", "moving average α", "fairseq-adv reproduce arch-fig2a", _SMALL),
    Item("Fig. 2b", "Tc", "fairseq-adv reproduce arch-fig2b", _SMALL),
    Item("Fig. 2c", "K and R-1-NN", "fairseq-adv reproduce arch-fig2c", _SMALL),
    Item("Fig. 2d", "cached proportion", "fairseq-adv reproduce arch-fig2d", _SMALL),
    Item("Fig. 3", "variance of the gradient's norm", "fairseq-adv reproduce arch-fig3", _SMALL),
    Item(
        "Fig. 4",
        "a head alone on frozen features",
        f"{_GLUE} --set glue-rte --name head train plain -- --finetune-from-model F --adv-freeze-encoder",
        f"{_NO_DATA}; the steps are below, the frozen encoder is tested",
    ),
    Item("Table 7", "beam, length penalty", "bash examples/translation/iwslt15-en-vi.sh evaluate", _RECIPES),
    Item("Table 8", "GLUE's tasks", f"{_GLUE} --set glue-cola prepare", "all eight are sets of the recipe"),
)
CONADV: Tuple[Item, ...] = (
    Item("Eq. 1, 2", "adversarial training", "--criterion disadv_label_smoothed", _ORACLE),
    Item("Eq. 3", "raw α·g of older parameters", "--conadv-gradient raw", _WRITTEN),
    Item("Eq. 4", "½ of clean and perturbed loss", "--criterion conadv_label_smoothed", _ORACLE),
    Item("Eq. 5, Alg. 1", "concurrent steps", "--conadv-placement spare", "tested: the losses of one rank"),
    Item("Split BatchNorm", "", "", "not applicable: a Transformer has no BatchNorm"),
    Item("Eq. 6–36", "assumptions, lemmas, theorem", "", "not applicable: proofs, nothing to run"),
    Item("Fig. 1, 3", "workflow", "", "not a result: drawings"),
    Item("Fig. 2", "augmentation over batches", "fairseq-adv reproduce conadv-table1", _PART),
    Item("Table 1", "accuracy over batches", "fairseq-adv reproduce conadv-table1", _PART),
    Item("Table 2", "with augmentation", "fairseq-adv reproduce conadv-table2", _PART),
    Item("Table 3", "training time", "fairseq-adv reproduce conadv-table3", "small: [large_batch.md](large_batch.md)"),
    Item("Table 4", "generalisation gap", "fairseq-adv reproduce conadv-table4", _SMALL),
    Item("Table 5", "radius p", "fairseq-adv reproduce conadv-table5", _SMALL),
    Item("Fig. 4a", "throughput", "python benchmarks/conadv_placement.py", "run on 2 CPU cores, below"),
    Item("Fig. 4b", "twice the processors", "python benchmarks/conadv_placement.py", "run on 2 CPU cores, below"),
    Item("Table 6", "ResNet-50's values", "", "not applicable: values of another model; one by one below"),
)

# Only the abstracts are published text here; there is no reference code.
SCALA: Tuple[Item, ...] = (
    Item("abstract", "adversarial noise", "--criterion scala_label_smoothed", "our instantiation, tested by an oracle"),
    Item(
        "abstract",
        "2.7 to 9.8 × faster on GLUE",
        "fairseq-adv study large-batch-sentences 'examples/sentence_prediction/glue.sh --set glue-rte'",
        _NO_DATA,
    ),
    Item(
        "abstract",
        "the same question for translation",
        "fairseq-adv study large-batch --work-dir work/en-de-1000 --methods plain scala:4,16",
        "run on the quickstart's text: [large_batch.md](large_batch.md#what-it-found)",
    ),
    Item("abstract", "convergence rate", "", "not applicable: theory, nothing to run"),
)


def index_table(items: Tuple[Item, ...]) -> List[str]:
    """The table as lines of Markdown."""
    lines = ["| paper | what | ours | state |", "|---|---|---|---|"]
    for item in items:
        ours = f"`{item.ours}`" if item.ours else "–"
        lines.append(f"| {item.item} | {item.what} | {ours} | {item.status} |")
    return lines
