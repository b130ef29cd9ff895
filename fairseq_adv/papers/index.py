"""Every table, figure, equation and algorithm of ARCH and ConAdv: our command or option, and its state."""

from __future__ import annotations

from typing import List, NamedTuple, Tuple


class Item(NamedTuple):
    """*ours* is a command or options of ``fairseq-train`` (empty: there is none); *status* says the rest."""

    item: str
    what: str
    ours: str
    status: str


_SMALL = "run on the quickstart's text, below"
_NO_DATA = "not run on the paper's data: neither corpora nor a GPU were at hand; small: [results.md](results.md)"
_ORACLE = "tested by an oracle"
_WRITTEN = f"{_ORACLE}; not the default"
_PART = "most of its runs are rows of conadv-table5"
_ONE_SEED = "run on the quickstart's text with one seed, below"
_RECIPES = "in the recipes, tested"
_SENTENCES = "the criterion is there for sentences; not run on this task here"

ARCH: Tuple[Item, ...] = (
    Item("Eq. 1", "min-max with KL(p‖q)", "--criterion smart_label_smoothed --adv-divergence kl", _ORACLE),
    Item("Eq. 2", "objective with cached δ", "--criterion arch_label_smoothed", _ORACLE),
    Item("Eq. 2, δ", "training on the average", "--cache-train-on-average", "an option"),
    Item("Eq. 3", "δ from neighbours", "--cache-num-neighbors 1", _ORACLE),
    Item("Eq. 4", "sentence vectors", "fairseq-adv neighbors DATA --output F --embeddings hf:M", "tested"),
    Item("Algorithm 1", "caching", "--cache-interval 15 --cache-ema 0.01 --cache-proportion 1", _ORACLE),
    Item("Algorithms 2, 3", "memory saving", "--cache-proportion 0.1 --cache-neighbors F", _ORACLE),
    Item("Table 1", "passes of each method", "python benchmarks/step_time.py", "run, below"),
    Item("Fig. 1 left", "wall time, 150 epochs", "fairseq-adv reproduce arch-fig1", _NO_DATA),
    Item("Fig. 1 right", "wall time on SST-2", "--criterion arch_sentence_prediction", _SENTENCES),
    Item("Table 2", "BLEU, six directions", "fairseq-adv reproduce arch-table2 --corpus RECIPE", _NO_DATA),
    Item("Table 3", "BLEU, WMT'16", "fairseq-adv reproduce arch-table3 --corpus RECIPE", _NO_DATA),
    Item("Table 4", "corpora", "bash examples/translation/iwslt14-de-en.sh prepare", "[recipes.md](recipes.md)"),
    Item("Table 5", "GLUE", "--criterion arch_sentence_prediction --adv-preset arch-b2", _SENTENCES),
    Item("Table 6", "ANLI", "--criterion arch_sentence_prediction --adv-preset arch-b2", _SENTENCES),
    Item("Fig. 2a", "moving average α", "fairseq-adv reproduce arch-fig2a", _SMALL),
    Item("Fig. 2b", "Tc", "fairseq-adv reproduce arch-fig2b", _SMALL),
    Item("Fig. 2c", "K and R-1-NN", "fairseq-adv reproduce arch-fig2c", _SMALL),
    Item("Fig. 2d", "cached proportion", "fairseq-adv reproduce arch-fig2d", _SMALL),
    Item("Fig. 3", "variance of the gradient's norm", "fairseq-adv reproduce arch-fig3", _SMALL),
    Item(
        "Table 7",
        "beam, length penalty",
        "bash examples/translation/iwslt15-en-vi.sh evaluate",
        _RECIPES,
    ),
    Item("B.1", "values for translation", "--adv-preset paper", "the defaults of `arch`; tested"),
    Item("B.1, batch", "64k and 450k tokens", "--target-batch-tokens 64k", _RECIPES),
    Item("B.2", "values for GLUE", "--adv-preset arch-b2", "tested"),
    Item("Table 8", "GLUE's tasks", "", "not a result: sizes of the data"),
)
CONADV: Tuple[Item, ...] = (
    Item("Eq. 1, 2", "adversarial training", "--criterion disadv_label_smoothed", _ORACLE),
    Item(
        "Eq. 3",
        "raw α·g",
        "--criterion conadv_label_smoothed --conadv-gradient raw",
        _WRITTEN,
    ),
    Item("Sec. 4.1", "random initialisation", "--conadv-start-norm 0.1", _WRITTEN),
    Item("τ", "delay", "--conadv-delay 1", "tested by an oracle for 1, 2 and 3"),
    Item(
        "Eq. 4, 5, Alg. 1", "concurrent steps", "--criterion conadv_label_smoothed --conadv-placement spare", "tested"
    ),
    Item("Split BatchNorm", "", "", "not applicable: a Transformer has no BatchNorm"),
    Item("Lemmas, Theorem 1", "", "", "not applicable: proofs under strong concavity, nothing to run"),
    Item("Fig. 1, 3", "workflow", "", "not a result: drawings"),
    Item(
        "Fig. 2",
        "augmentation over batches",
        "fairseq-adv reproduce conadv-table1",
        _PART,
    ),
    Item(
        "Table 1",
        "accuracy over batches",
        "fairseq-adv reproduce conadv-table1",
        _PART,
    ),
    Item(
        "Table 2",
        "with augmentation",
        "fairseq-adv reproduce conadv-table2",
        _PART,
    ),
    Item(
        "Table 3",
        "training time",
        "fairseq-adv reproduce conadv-table3",
        "small: [large_batch.md](large_batch.md)",
    ),
    Item("Table 4", "generalisation gap", "fairseq-adv reproduce conadv-table4", _ONE_SEED),
    Item("Table 5", "radius p", "fairseq-adv reproduce conadv-table5", _ONE_SEED),
    Item("Fig. 4", "throughput", "python benchmarks/conadv_placement.py", "run on 2 CPU cores, below"),
    Item("Table 6", "ResNet-50's values", "", "not applicable: learning rate, LARS and decay of another model"),
)


def index_table(items: Tuple[Item, ...]) -> List[str]:
    """The table as lines of Markdown."""
    lines = ["| paper | what | ours | state |", "|---|---|---|---|"]
    for item in items:
        ours = f"`{item.ours}`" if item.ours else "–"
        lines.append(f"| {item.item} | {item.what} | {ours} | {item.status} |")
    return lines
