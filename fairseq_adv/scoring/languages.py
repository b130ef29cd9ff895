"""The tokeniser that sacreBLEU's BLEU wants for a language: 13a finds words by their blanks, which not all have."""

from __future__ import annotations

from typing import Any, Optional

DEFAULT = "13a"
# sacreBLEU's own choices, and characters where it has none for a language without blanks between words.
BY_LANGUAGE = {
    "zh": "zh",
    "yue": "zh",
    "ja": "ja-mecab",
    "ko": "ko-mecab",
    "th": "char",
    "lo": "char",
    "km": "char",
    "my": "char",
    "bo": "char",
    "dz": "char",
}


def tokenizer_for(language: str) -> str:
    """The tokeniser by the first part of a language's name: ``zh``, ``zh_CN`` and ``zh-Hans`` are one."""
    return BY_LANGUAGE.get(language.replace("_", "-").split("-")[0].lower(), DEFAULT)


def bleu_metric(tokenizer: str, lowercase: bool = False, language: Optional[str] = None) -> Any:
    """sacreBLEU's BLEU. Raises ``ValueError`` where *tokenizer* is unknown or needs what is not installed."""
    from sacrebleu.metrics import BLEU

    if tokenizer not in BLEU.TOKENIZERS:
        raise ValueError(f"--sacrebleu-tokenize must be one of {', '.join(BLEU.TOKENIZERS)}, got {tokenizer}")
    try:
        return BLEU(tokenize=tokenizer, lowercase=lowercase)
    except (RuntimeError, ImportError) as error:
        extra = tokenizer.split("-")[0]
        raise ValueError(
            f"the tokeniser {tokenizer} for {language or 'this language'} is not installed: pip install "
            f"'sacrebleu[{extra}]', or --sacrebleu-tokenize char, whose numbers compare with no others"
        ) from error
