"""The vocabulary of a BERT-like tokenizer as a dictionary of fairseq, and text as the symbols of that dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

# fairseq's own symbols, in the order of its dictionaries, and transformers' names for the tokens in their place
SPECIALS = {"<s>": "cls_token", "<pad>": "pad_token", "</s>": "sep_token", "<unk>": "unk_token"}
MASK = "<mask>"  # the task for sentences adds it behind all others


class Vocabulary:
    """Symbols of fairseq (``symbols``, specials first, mask last) and the ids of the tokens they stand for (``rows``).

    ``rows`` has −1 for a mask that the tokenizer lacks. Raises ``ValueError`` for a tokenizer that fairseq's
    dictionaries cannot express.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        specials = {symbol: _special_id(tokenizer, name) for symbol, name in SPECIALS.items()}
        mask = tokenizer.mask_token_id
        taken = {*specials.values(), mask}
        others = {index: token for token, index in tokenizer.get_vocab().items() if index not in taken}
        self.symbols = [*specials, *(others[index] for index in sorted(others)), MASK]
        self.rows = [*specials.values(), *sorted(others), -1 if mask is None else mask]
        self._symbol_of: Dict[int, str] = dict(zip(self.rows, self.symbols))
        self._check()

    def _check(self) -> None:
        broken = [
            symbol for symbol in self.symbols if not symbol or len(symbol.split()) != 1 or symbol != symbol.strip()
        ]
        if broken:
            raise ValueError(f"the tokenizer has tokens with blanks, such as {broken[0]!r}, which fairseq would split")
        if len(set(self.symbols)) < len(self.symbols):
            twice = next(symbol for symbol in self.symbols if self.symbols.count(symbol) > 1)
            raise ValueError(f"the tokenizer has a token {twice}, which fairseq's dictionaries use for something else")

    def write(self, path: Path) -> None:
        """``dict.txt`` for ``fairseq-preprocess --srcdict``: neither the specials nor the mask, both are implied."""
        lines = (f"{symbol} 1\n" for symbol in self.symbols[len(SPECIALS) : -1])
        path.write_text("".join(lines), encoding="utf-8")

    def split(self, sentences: Sequence[str], max_tokens: Optional[int] = None) -> List[List[str]]:
        """The symbols of each sentence, without those around it; at most *max_tokens* of each."""
        encoded = self._tokenizer(
            list(sentences),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [[self._symbol_of[index] for index in ids[:max_tokens]] for ids in encoded["input_ids"]]


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of a model: a folder, or a name on the Hugging Face hub; ``ImportError`` without transformers."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError("tokenizers of BERT need transformers: pip install 'fairseq-adv[bert]'") from error
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what transformers raises for a folder that is no model depends on its version
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(f"cannot read a tokenizer from {folder}: {reason}") from error


def _special_id(tokenizer: Any, name: str) -> int:
    value = getattr(tokenizer, f"{name}_id")
    if value is None:
        raise ValueError(f"the tokenizer has no {name}: only those of BERT and RoBERTa can be converted")
    return int(value)
