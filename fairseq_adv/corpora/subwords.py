"""Learn byte-pair encoding on both sides of the training set together and apply it to all sets.

    python scripts/subwords.py text --languages de en --output bpe --kind sentencepiece --vocabulary 10000

``sentencepiece`` learns that many pieces in all, ``subword-nmt`` (Sennrich et al. 2016) that many merges, which gives a
few more symbols. Neither changes a character: joined again (``--remove-bpe sentencepiece`` or ``subword_nmt`` in
fairseq) the pieces are the tokens that went in. Writes ``{train,valid,test}.LANG`` and the model.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Callable, Optional, Sequence

from tqdm import tqdm

from fairseq_adv.corpora.lines import read_lines
from fairseq_adv.corpora.whole_folder import whole_folder

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


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Byte-pair encoding of parallel text, learnt on both sides together.")
    parser.add_argument("folder", type=Path, help="folder of {train,valid,test}.LANG")
    parser.add_argument("--languages", nargs=2, required=True, metavar="LANG")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="(sentencepiece)")
    parser.add_argument("--vocabulary", type=int, default=10000, help="pieces or merges (10000)")
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    try:
        with whole_folder(args.output) as partial:
            training = [args.folder / f"train.{language}" for language in args.languages]
            encode = LEARN[args.kind](training, partial, args.vocabulary)
            for subset in ("train", "valid", "test"):
                for language in args.languages:
                    encode_file(args.folder / f"{subset}.{language}", partial / f"{subset}.{language}", encode)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"subwords.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
