"""Where the papers are silent, or say two things, and what is done here; docs/methods.md shows this table."""

from __future__ import annotations

from typing import List, NamedTuple, Tuple


class Choice(NamedTuple):
    """One open point: what is not said, what is done here, the option for the alternative (empty: none)."""

    paper: str
    open_point: str
    ours: str
    option: str


CHOICES: Tuple[Choice, ...] = (
    Choice("ARCH", "how far out the uniform start of the ascent lies", "on the sphere: norm ε", "--adv-init-scale"),
    Choice(
        "ARCH",
        "whether the divergence's gradient also flows through the clean output p",
        "it does, as Eq. 1 reads; the authors' public code detaches p",
        "--adv-detach-clean",
    ),
    Choice(
        "ARCH, SMART",
        "dropout masks of the perturbed pass in the loss",
        "drawn afresh, as R3F and the public code do; part of the gain is then dropout consistency",
        "--adv-outer-masks",
    ),
    Choice(
        "ARCH",
        "dropout masks inside the ascent",
        "those of the clean pass: else the divergence is dropout noise",
        "",
    ),
    Choice(
        "ARCH",
        "one-sided KL (Sec. 3.1) or symmetric (SMART's paper, the public code)",
        "one-sided, the paper's; smart keeps its own paper's symmetric one",
        "--adv-divergence",
    ),
    Choice(
        "ARCH",
        "training on the averaged δ (Eq. 2) or on the one just found (Algorithms 1 and 3) in a refresh",
        "the algorithms",
        "--cache-train-on-average",
    ),
    Choice("ARCH", "the first C[i], before there is anything to average", "δ itself, not (1 − α) δ", ""),
    Choice("ARCH", "whether a δ rebuilt by Eq. 3, whose norm shrinks, is rescaled", "it is not", "--neighbor-rescale"),
    Choice("ARCH", "whether an averaged δ is projected", "it is: a mean of two points of a ball lies in it", ""),
    Choice("ARCH", "whether source and target have one ball or one each", "one each", ""),
    Choice("ARCH", "where δ is added", "to the raw embeddings, before ×√d: behind it ε would be √d smaller", ""),
    Choice("ARCH", "the weight λ", "1", "--adv-lambda"),
    Choice("ARCH", "which model's word embeddings find the neighbours", "any; the recipes take BERT's", "--embeddings"),
    Choice(
        "ARCH",
        "a start after plain updates",
        "none; if asked for, with the first whole epoch, because a refresh is an epoch long",
        "--adv-start-update",
    ),
    Choice(
        "ConAdv",
        "raw α·g (Eq. 3, 5) or a normalised step (FGSM takes the sign)",
        "normalised: the gradient of a sentence's loss differs between sentences and falls in training by orders",
        "--conadv-gradient",
    ),
    Choice(
        "ConAdv",
        "random initialisation (Sec. 4.1) or none (Eq. 3, 5)",
        "none, as the equations",
        "--conadv-start-norm",
    ),
    Choice("ConAdv", "whether δ is projected on its radius", "a normalised step has that norm; raw steps are not", ""),
    Choice("ConAdv", "split BatchNorm in a Transformer", "none: there is no BatchNorm", ""),
    Choice("ConAdv", "the first τ batches of an epoch", "perturbed on the spot, as DisAdv's", ""),
    Choice("SMART", "dropout in the momentum teacher", "off", ""),
    Choice("SMART", "the momentum teacher in updates without a penalty", "it follows in each one", "--adv-every"),
    Choice("R3F", "sum or mean of the two directions", "their sum, as its paper", ""),
    Choice("R-Drop", "sum or mean of the two cross-entropies", "their sum, as its paper: twice plain's gradient", ""),
    Choice("ScaLA", "everything: no reference code exists", "one ascent step from noise of 1e-5", "--scala-loss"),
)


def choices_table() -> List[str]:
    """The table as lines of Markdown."""
    lines = ["| paper | not said, or said twice | here | option |", "|---|---|---|---|"]
    for choice in CHOICES:
        option = f"`{choice.option}`" if choice.option else "–"
        lines.append(f"| {choice.paper} | {choice.open_point} | {choice.ours} | {option} |")
    return lines
