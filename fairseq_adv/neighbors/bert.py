"""Words and word embeddings of a BERT-like model.

Only its tokenizer and one matrix are read: no model is built, so no code of it is imported. (Model classes of
``transformers`` import torchaudio, which fairseq installs and which often does not fit the torch beside it.)
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

import numpy as np
from torch import Tensor

from fairseq_adv.neighbors.model_files import parameter_files, read_parameter

# how architectures end the name of their input embedding; the first that is found counts
_PARAMETERS = (
    "word_embeddings.weight",  # BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, DeBERTa, MPNet, ALBERT
    "tok_embeddings.weight",  # ModernBERT
    "shared.weight",  # T5, mT5, BART, mBART
    "word_embedding.weight",  # XLNet
    "embed_tokens.weight",  # OPT, LLaMA
    "wte.weight",  # GPT-2
    "embeddings.weight",  # XLM, FlauBERT
)


class BertWords:
    """The input embedding matrix ``weight`` (``V x D``) of a model and the tokenizer that goes with it."""

    def __init__(self, weight: Tensor, tokenizer: Any) -> None:
        self.weight, self.tokenizer = weight, tokenizer
        self._is_word = np.ones(len(weight), dtype=bool)
        # includes the unknown word: what the model does not know says nothing about a sentence
        self._is_word[list(tokenizer.all_special_ids)] = False

    def split(self, sentences: Sequence[str]) -> List[np.ndarray]:
        """Rows of ``weight`` for each sentence; special tokens and unknown words are left out, nothing is cut off."""
        encoded = self.tokenizer(
            list(sentences),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        rows = [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        return [row[self._is_word[row]] for row in rows]


def load_bert(name: str) -> BertWords:
    """The BERT-like model *name*: a directory, or a name on the Hugging Face hub.

    Raises ``ImportError`` without transformers and ``ValueError`` for a model that cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"hf:{name} needs transformers: pip install 'fairseq-adv[bert]'") from error
    tokenizer = _read(name, lambda: transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    weight = _read(name, lambda: _embedding_matrix(name))
    if len(tokenizer) > len(weight):
        raise ValueError(f"hf:{name} has a tokenizer of {len(tokenizer)} words and embeddings for {len(weight)}")
    return BertWords(weight, tokenizer)


def _read(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # what transformers raises for a directory that is no model depends on its version
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(
            f"cannot read embedding model hf:{name} ({reason}): give a directory with the model and its tokenizer or "
            "a name on the hub; the libraries it may need come with pip install 'fairseq-adv[bert]'"
        ) from error


def _embedding_matrix(name: str) -> Tensor:
    """The input embeddings (``V x D``) out of the files of model *name*."""
    files = parameter_files(name, _PARAMETERS)
    for ending in _PARAMETERS:
        for parameter, path in files.items():
            if parameter == ending or parameter.endswith(f".{ending}"):
                return read_parameter(path, parameter)
    raise ValueError(f"no parameter of it is called {', '.join(_PARAMETERS)}")
