"""Learn byte-pair encoding on both sides of the training set together and apply it to all sets.

``sentencepiece`` learns that many pieces in all, ``subword-nmt`` (Sennrich et al. 2016) that many merges, which gives a
few more symbols. Neither changes a character: joined again (``--remove-bpe sentencepiece`` or ``subword_nmt`` in
fairseq) the pieces are the tokens that went in. Writes ``{train,valid,test}.LANG`` and the model.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Callable, Sequence

from tqdm import tqdm

from fairseq_adv.corpora.lines import read_lines
from fairseq_adv.whole_files import whole_folder

KINDS = ("sentencepiece", "subword-nmt")
MOST_SENTENCES = 10_000_000  # that sentencepiece learns from; more are sampled

Encoder = Callable[[str], str]


def learn_sentencepiece(training: Sequence[Path], output: Path, vocabulary: int) -> Encoder:
    import sentencepiece

    # no normalisation: what is scored must be the tokens that the references have
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=chain.from_iterable(map(read_lines, training)),
        model_prefix=str(output / "sentencepiece"),
        vocab_size=vocabulary,
        model_type="bpe",
        character_coverage=1.0,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        input_sentence_size=MOST_SENTENCES,
        shuffle_input_sentence=True,
        minloglevel=1,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(output / "sentencepiece.model"))
    return lambda line: " ".join(model.encode(line, out_type=str))


def learn_subword_nmt(training: Sequence[Path], output: Path, vocabulary: int) -> Encoder:
    try:
        from subword_nmt.apply_bpe import BPE
        from subword_nmt.learn_bpe import learn_bpe
    except ImportError as error:
        raise ValueError("--kind subword-nmt needs subword-nmt: pip install subword-nmt") from error
    codes = output / "codes"
    with codes.open("w", encoding="utf-8") as out:
        learn_bpe((f"{line}\n" for path in training for line in read_lines(path)), out, vocabulary)
    with codes.open(encoding="utf-8") as lines:
        bpe = BPE(lines)
    return lambda line: bpe.process_line(line)


LEARN = {"sentencepiece": learn_sentencepiece, "subword-nmt": learn_subword_nmt}


def encode_file(source: Path, target: Path, encode: Encoder) -> None:
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for line in tqdm(read_lines(source), unit=" lines", desc=source.name, disable=None):
            out.write(encode(line) + "\n")


def encode_folder(folder: Path, output: Path, languages: Sequence[str], kind: str, vocabulary: int) -> None:
    """Learn pieces of *kind* on ``train.LANG`` of *folder* and write all sets in pieces to the folder *output*.

    Raises ``ValueError`` where the text is too small for so many pieces, or a library is missing.
    """
    with whole_folder(output) as partial:
        try:
            encode = LEARN[kind]([folder / f"train.{language}" for language in languages], partial, vocabulary)
        except RuntimeError as error:  # of sentencepiece
            raise ValueError(str(error)) from error
        for subset in ("train", "valid", "test"):
            for language in languages:
                encode_file(folder / f"{subset}.{language}", partial / f"{subset}.{language}", encode)
