"""Every hyper-parameter that the papers name, as an :class:`~fairseq_adv.papers.index.Item`.

Tests check what a status says: ``the default`` means that the options change nothing, ``in the recipes`` that those
have the value, ``of --adv-preset`` that the preset has it.
"""

from __future__ import annotations

from typing import Tuple

from fairseq_adv.papers.index import Item

_DEFAULT = "the default"
_RECIPES = "in the recipes, tested"
_B2 = "of `--adv-preset arch-b2`, tested"
_GLUE = "bash examples/sentence_prediction/glue.sh"
_SEARCHED = "an option of the recipe, to be searched"
_BERT = "--criterion arch_sentence_prediction"

ARCH_VALUES: Tuple[Item, ...] = (
    Item("Sec. 4.2", "both sides perturbed", "--adv-sides both", _DEFAULT),
    Item("Sec. 4.2", "base model for En-Vi, En-Fr", "--arch transformer", _RECIPES),
    Item("Sec. 4.2", "small model for IWSLT'14", "--arch transformer_iwslt_de_en", _RECIPES),
    Item("Sec. 4.2", "big model for WMT'16", "--arch transformer_vaswani_wmt_en_de_big", _RECIPES),
    Item("B.1", "batch 64k, for WMT 450k tokens", "--target-batch-tokens 64k", _RECIPES),
    Item("B.1", "Adam, β = (0.9, 0.98)", "--optimizer adam --adam-betas '(0.9, 0.98)'", _RECIPES),
    Item("B.1", "learning rate", "--lr 0.001", _RECIPES),
    Item("Fig. 1", "150 epochs", "--max-epoch 150", _RECIPES),
    Item(
        "B.1",
        "the model of the best validation",
        "--best-checkpoint-metric bleu --maximize-best-checkpoint-metric",
        f"{_RECIPES}; WMT averages as Ott et al. 2018",
    ),
    Item("B.1", "uniform δ⁰", "--adv-init uniform", _DEFAULT),
    Item("B.1", "ℓ2 norm of a sentence", "--adv-norm l2 --adv-level sentence", _DEFAULT),
    Item("B.1", "ε", "--adv-eps 0.1", _DEFAULT),
    Item("B.1", "S", "--adv-steps 3", _DEFAULT),
    Item("B.1", "η", "--adv-step-size 0.1", "what is taken where it is not given: ε"),
    Item("B.1", "step along g/‖g‖", "--adv-gradient normalised", _DEFAULT),
    Item("B.1", "Tc", "--cache-interval 15", _DEFAULT),
    Item("B.1", "α", "--cache-ema 0.01", _DEFAULT),
    Item("B.1", "cached share", "--cache-proportion 0.1", _DEFAULT),
    Item("B.1", "K", "--cache-num-neighbors 1", _DEFAULT),
    Item("Eq. 1", "λ", "--adv-lambda 1", f"{_DEFAULT}; the paper gives none"),
    Item("B.2", "BERT-base", f"{_GLUE} --encoder hf:bert-base-uncased prepare", _RECIPES),
    Item("B.2", "batch of 8 to 128", f"{_GLUE} --batch 8 train arch", _SEARCHED),
    Item("B.2", "learning rate of 5e-5 to 2e-4", f"{_GLUE} --lr 5e-5 train arch", _SEARCHED),
    Item("B.2", "warm-up of 10 %", f"{_GLUE} train arch", "in the recipe"),
    Item("B.2", "dropout of the head", f"{_BERT} --pooler-dropout 0.1", "in the recipe"),
    Item("B.2", "dropout of BERT, 0 or 0.1", f"{_GLUE} --dropout 0 train arch", _SEARCHED),
    Item("B.2", "10 epochs", f"{_GLUE} --epochs 10 train arch", _RECIPES),
    Item("B.2", "δ⁰ ~ N(0, 1e-5²)", f"{_BERT} --adv-init normal --adv-init-sigma 1e-5", _B2),
    Item("B.2", "ℓ∞ of a word, ε = 1", f"{_BERT} --adv-norm linf --adv-level word --adv-eps 1", _B2),
    Item("B.2", "S of 1 or 2", f"{_BERT} --adv-preset arch-b2 --adv-steps 2", "1 in the preset"),
    Item("B.2", "η of 1e-4 or 1e-5", f"{_BERT} --adv-preset arch-b2 --adv-step-size 1e-5", "1e-4 in the preset"),
    Item("B.2", "cached once", f"{_BERT} --cache-interval inf", _B2),
)
CONADV_VALUES: Tuple[Item, ...] = (
    Item("Sec. 3.3", "τ", "--conadv-delay 1", _DEFAULT),
    Item("Sec. 4.1", "random initialisation", "--conadv-start-norm 0.1", "tested by an oracle; not the default"),
    Item("Sec. 4.1", "one step of PGD", "--criterion conadv_label_smoothed", "always one"),
    Item("Table 5", "p of 0 to 12, for images", "--conadv-alpha 0.1", "the unit is another: embeddings"),
    Item("Table 1", "batch of 1k to 96k images", "--target-batch-tokens 32k", "counted in target tokens"),
    Item("Sec. 4.1", "AutoAugment", "--adv-source-cutoff 0.1", "source words hidden in its place"),
    Item(
        "Sec. 4.1",
        "AutoAugment, again",
        "--adv-source-bpe-dropout 0.1 --adv-source-bpe-model F",
        "or source words cut anew; tested by an oracle, not run",
    ),
    Item("Table 6", "LARS, momentum 0.9", "--optimizer adv_lars --lars-momentum 0.9", "there; not used: Adam suits"),
    Item("Table 6", "weight decay", "--optimizer adv_lars --lars-weight-decay 5e-4", f"{_DEFAULT} of `adv_lars`"),
    Item("Table 6", "polynomial decay", "--lr-scheduler polynomial_decay", "fairseq's own; not used"),
    Item("Table 6", "label smoothing", "--label-smoothing 0.1", "in every recipe"),
    Item("Table 6", "peak rate, epochs, warm-up", "", "not applicable: of ResNet-50 with LARS"),
)
