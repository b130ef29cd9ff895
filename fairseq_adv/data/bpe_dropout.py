"""BPE-dropout of the source (Provilkov et al. 2020): words are cut anew in each epoch, some merges left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from torch import Tensor

from fairseq_adv.data.source_augmentation import SourceAugmentation

WORD_START = "▁"  # what sentencepiece writes for the blank before a word


def merge_ranks(model: Path) -> Dict[str, int]:
    """Piece -> its place in the order of merges, of a sentencepiece model of byte-pair encoding.

    Raises ``FileNotFoundError``, and ``ValueError`` for a unigram model, which has no merges.
    """
    if not model.is_file():
        raise FileNotFoundError(f"--adv-source-bpe-model {model}: there is no such file")
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    normal = [i for i in range(len(pieces)) if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))]
    ranks = {pieces.id_to_piece(i): -pieces.get_score(i) for i in normal}
    if any(rank != int(rank) for rank in ranks.values()):
        raise ValueError(f"--adv-source-bpe-model {model} is no model of byte-pair encoding: train it with bpe")
    return {piece: int(rank) for piece, rank in ranks.items()}


def split_word(word: str, ranks: Dict[str, int], is_dropped: Callable[[], bool]) -> List[str]:
    """Merge the letters of *word*, the first possible merge in the order of *ranks* before the others.

    At each step each possible merge is left out where *is_dropped* says so; it ends where none is left (Algorithm 1).
    """
    pieces = list(word)
    while len(pieces) > 1:
        merged = (left + right for left, right in zip(pieces, pieces[1:]))
        possible = [(ranks[piece], place) for place, piece in enumerate(merged) if piece in ranks and not is_dropped()]
        if not possible:
            break
        place = min(possible)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


class BpeDropout(SourceAugmentation):
    """Each merge left out with probability *share*.

    A word with an unknown symbol, or one that would be cut into pieces that *dictionary* lacks, stays as it is; so does
    a sentence that would be longer than *longest*.
    """

    def __init__(self, dataset: Any, share: float, ranks: Dict[str, int], dictionary: Any, longest: int, seed: int):
        super().__init__(dataset, seed)
        self._share, self._ranks, self._dictionary, self._longest = share, ranks, dictionary, longest

    def changed(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        cut: List[int] = []
        for word in self._words(tokens.tolist()):
            cut += self._cut(word, generator)
        return tokens if len(cut) > self._longest else torch.tensor(cut, dtype=tokens.dtype)

    def _words(self, tokens: List[int]) -> List[List[int]]:
        """The tokens word by word, the end of the sentence alone."""
        words: List[List[int]] = []
        for token in tokens:
            starts = token == self._dictionary.eos() or self._dictionary[token].startswith(WORD_START)
            if starts or not words:
                words.append([])
            words[-1].append(token)
        return words

    def _cut(self, word: List[int], generator: torch.Generator) -> List[int]:
        if any(token < self._dictionary.nspecial for token in word):
            return word
        text = "".join(self._dictionary[token] for token in word)
        draws = iter(torch.rand(len(text) ** 2, generator=generator).tolist())  # a step has fewer merges than letters
        pieces = [self._dictionary.index(p) for p in split_word(text, self._ranks, lambda: next(draws) < self._share)]
        return word if self._dictionary.unk() in pieces else pieces
