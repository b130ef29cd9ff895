"""Reading what ``fairseq-preprocess`` wrote: the sentence pairs of a split, with the ids that training gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

import numpy as np
from fairseq.data import Dictionary, data_utils
from fairseq.tasks.translation import load_langpair_dataset

from fairseq_adv.neighbors.fingerprint import Fingerprint, dataset_fingerprint


class BinarisedSide:
    """One side of a split: sentence id -> tokens or text."""

    def __init__(self, sentences: Any, dictionary: Dictionary) -> None:
        self.sentences, self.dictionary = sentences, dictionary
        self._is_word = np.ones(len(dictionary), dtype=bool)
        self._is_word[[dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()]] = False

    def tokens(self, ids: np.ndarray) -> List[np.ndarray]:
        """Dictionary indices (int64) of each sentence; special tokens and unknown words are left out."""
        rows = [self.sentences[int(i)].numpy() for i in ids]
        try:
            return [row[self._is_word[row]] for row in rows]
        except IndexError as error:
            raise ValueError(
                f"the data name word {max(row.max() for row in rows)}, but the dictionary has {len(self._is_word)}: "
                "binarise them again with this dictionary"
            ) from error

    def text(self, ids: np.ndarray, remove_bpe: Optional[str] = None) -> List[str]:
        """Each sentence as text, its pieces joined as fairseq's ``--remove-bpe`` does; ``bert``: those with ``##``."""
        symbols = self.dictionary.symbols
        pieces = (" ".join(symbols[t] for t in row) for row in self.tokens(ids))
        if remove_bpe == "bert":
            return [sentence.replace(" ##", "") for sentence in pieces]
        return [data_utils.post_process(sentence, remove_bpe) for sentence in pieces]


@dataclass(frozen=True)
class BinarisedCorpus:
    """A split of the data, unfiltered; sample ids are the positions in it, as in fairseq's batches.

    ``tgt`` is ``None`` for the rows of a sentence task.
    """

    source_lang: str
    target_lang: str
    src: BinarisedSide
    tgt: Optional[BinarisedSide]
    fingerprint: Fingerprint
    trained: Optional[np.ndarray] = None  # the pairs that are not too long to be trained (bool); None: not known

    @property
    def num_samples(self) -> int:
        """Number of sentence pairs."""
        return int(self.fingerprint["num_samples"])

    def side(self, name: str) -> BinarisedSide:
        """The side ``"src"`` or ``"tgt"``."""
        sentences = {"src": self.src, "tgt": self.tgt}[name]
        if sentences is None:
            raise ValueError(f"the data have no side {name!r}")
        return sentences


def open_corpus(
    data: Union[str, Path],
    source_lang: Optional[str] = None,
    target_lang: Optional[str] = None,
    split: str = "train",
) -> BinarisedCorpus:
    """Open *split* in the directory *data* as ``--task translation`` does; nothing but an index is read.

    Languages that are not given are told from the file names. Raises ``FileNotFoundError`` for a missing
    directory, dictionary or split, and ``ValueError`` for several directories or a split without one side.
    """
    if ":" in str(data):
        raise ValueError(f"DATA {data} names several directories: ids differ between them, so give one")
    directory = Path(data)
    if not directory.is_dir():
        raise FileNotFoundError(f"no data directory {directory}: make one with fairseq-preprocess")
    source_lang, target_lang = _languages(directory, source_lang, target_lang)
    dictionaries = [_dictionary(directory, lang) for lang in (source_lang, target_lang)]
    dataset = load_langpair_dataset(
        str(directory),
        split,
        source_lang,
        dictionaries[0],
        target_lang,
        dictionaries[1],
        combine=True,
        dataset_impl=None,
        upsample_primary=1,
        left_pad_source=True,
        left_pad_target=False,
        max_source_positions=None,
        max_target_positions=None,
    )
    if dataset.tgt is None:
        raise ValueError(f"split {split!r} in {directory} has no {target_lang} side")
    symbols = [dictionary.symbols for dictionary in dictionaries]
    return BinarisedCorpus(
        source_lang,
        target_lang,
        BinarisedSide(dataset.src, dictionaries[0]),
        BinarisedSide(dataset.tgt, dictionaries[1]),
        dataset_fingerprint(np.asarray(dataset.src_sizes), np.asarray(dataset.tgt_sizes), symbols[0], symbols[1]),
    )


def _languages(directory: Path, source_lang: Optional[str], target_lang: Optional[str]) -> Tuple[str, str]:
    if source_lang and target_lang:
        return source_lang, target_lang
    inferred = data_utils.infer_language_pair(str(directory))
    source_lang, target_lang = source_lang or inferred[0], target_lang or inferred[1]
    if not source_lang or not target_lang:
        raise ValueError(f"cannot tell the languages from the files in {directory}: give --source-lang, --target-lang")
    return source_lang, target_lang


def _dictionary(directory: Path, lang: str) -> Dictionary:
    path = directory / f"dict.{lang}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"no dictionary {path}: is {directory} a directory made by fairseq-preprocess?")
    return Dictionary.load(str(path))
