"""A set of sentence pairs that a model is probed on, and the subwords that noisy text is cut into again."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import Tensor

Example = Dict[str, Any]  # id, source, target as a data set of fairseq gives them
Encoder = Callable[[str], str]  # text -> pieces, blanks between them

# Where the quickstart and the recipes put the model beside DATA, the folder that fairseq-preprocess wrote.
_MODELS = ("bpe/model.model", "bpe/sentencepiece.model", "bpe/codes")


@dataclass(frozen=True)
class SentenceSet:
    """Examples of one subset; *dataset* collates them."""

    dataset: Any
    examples: List[Example]

    @classmethod
    def whole(cls, dataset: Any) -> SentenceSet:
        return cls(dataset, [dataset[index] for index in range(len(dataset))])

    def sample(self, count: int, seed: int) -> SentenceSet:
        """*count* examples drawn at random, or all where there are no more."""
        if count >= len(self.examples):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.examples)), count))
        return replace(self, examples=[self.examples[index] for index in chosen])

    def batches(self, max_tokens: int) -> Iterator[Dict[str, Any]]:
        """Collated batches, of about equal lengths; rows × the longest side stay within *max_tokens*."""
        rows: List[Example] = []
        longest = 0
        for example in sorted(self.examples, key=_length):
            longest = max(longest, _length(example))
            if rows and longest * (len(rows) + 1) > max_tokens:
                yield self.dataset.collater(rows)
                rows, longest = [], _length(example)
            rows.append(example)
        if rows:
            yield self.dataset.collater(rows)

    def with_sources(self, sources: Sequence[Tensor]) -> SentenceSet:
        """The same pairs with other source tokens."""
        return replace(self, examples=[{**e, "source": source} for e, source in zip(self.examples, sources)])

    def __len__(self) -> int:
        return len(self.examples)


def _length(example: Example) -> int:
    return max(len(example["source"]), len(example["target"]))


@dataclass(frozen=True)
class Subwords:
    """Text ↔ tokens of one dictionary. ``symbol`` is what fairseq's ``--remove-bpe`` calls the kind of pieces."""

    dictionary: Any
    symbol: Optional[str]
    encode: Encoder

    def text(self, tokens: Tensor) -> str:
        """Tokens as text, pieces joined."""
        return self.dictionary.string(tokens, self.symbol)

    def tokens(self, text: str) -> Tensor:
        """Text as tokens, the end of the sentence included."""
        return self.dictionary.encode_line(self.encode(text), add_if_not_exist=False, append_eos=True).long()

    def is_known(self, tokens: Tensor) -> bool:
        """Whether the text of *tokens* can be told: an unknown symbol cannot."""
        return not bool(tokens.eq(self.dictionary.unk()).any())

    def check(self, sentences: SentenceSet, path: Path) -> None:
        """Raise ``ValueError`` unless most sources come out as they went in: else every number would be another's."""
        known = [e["source"] for e in sentences.examples if self.is_known(e["source"])]
        wrong = sum(not torch.equal(self.tokens(self.text(source)), source.long()) for source in known)
        if wrong > 0.02 * len(known):
            raise ValueError(
                f"--subwords {path} cuts {wrong} of {len(known)} sentences into other pieces than the data have: name "
                "the model that the data were made with"
            )


def subword_model(data: Path, named: Optional[Path]) -> Path:
    """*named*, or the file that lies beside the data; ``FileNotFoundError`` says how to name one."""
    if named is not None:
        if not named.is_file():
            raise FileNotFoundError(f"--subwords {named}: there is no such file")
        return named
    for name in _MODELS:
        if (data.parent / name).is_file():
            return data.parent / name
    raise FileNotFoundError(
        f"noise on letters needs the subwords of the source, but none of {', '.join(_MODELS)} lies in {data.parent}: "
        "name the sentencepiece model or the codes of subword-nmt with --subwords, or leave noise out of --measure"
    )


def load_subwords(path: Path, dictionary: Any) -> Subwords:
    """The kind by the file's name: ``*.model`` is sentencepiece's, anything else holds codes of subword-nmt."""
    if path.suffix == ".model":
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return Subwords(dictionary, "sentencepiece", lambda text: " ".join(model.encode(text, out_type=str)))
    try:
        from subword_nmt.apply_bpe import BPE
    except ImportError as error:
        raise ImportError(f"--subwords {path} needs subword-nmt: pip install 'fairseq-adv[bpe]'") from error
    with path.open(encoding="utf-8") as codes:
        bpe = BPE(codes)
    return Subwords(dictionary, "subword_nmt", bpe.process_line)
