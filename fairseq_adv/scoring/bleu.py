"""Score what ``fairseq-generate`` printed: BLEU and chrF on plain text, and the tokenised BLEU of papers.

    fairseq-generate … --gen-subset test --nbest 5 --required-batch-size-multiple 1 >test.out
    python scripts/score_bleu.py test.out --ref raw/test.de --output run/

- **BLEU** and **chrF** are sacreBLEU's (Post 2018), computed on detokenised text, printed with the signature
  that makes them comparable. They equal ``sacrebleu test.ref -i test.hyp -m bleu chrf`` to the last digit.
- **Tokenised BLEU** is the number of most papers of this field: case-sensitive, unsmoothed, on Moses tokens.
  It equals ``fairseq-score --sys test.tok.hyp --ref test.tok.ref``. It cannot be compared across tokenisers.
- **Tokenised data.** If what was binarised are Moses tokens, ``--detokenize`` makes plain text of the hypotheses, and
  ``--tokens generated`` takes them as they are for the tokenised BLEU. ``--lowercase`` is for a set-up that
  lower-cases: BLEU and chrF then ignore case, and their signatures say so.
- **Languages without blanks.** BLEU's tokeniser goes by the language (``--lang``, by default the ending of ``--ref``):
  zh, ja-mecab and ko-mecab for Chinese, Japanese and Korean, characters for Thai and others; the signature names it.
- **Every sentence counts.** ``fairseq-generate`` drops sentences that are too long, and, without
  ``--required-batch-size-multiple 1``, its last batch. A missing sentence is an error here.
- **Length penalty.** ``--tune valid.out --tune-ref raw/valid.de`` picks the penalty of the highest BLEU on
  the validation set from ``--lenpens`` and applies it to the test set. It enters fairseq's beam search only when
  a hypothesis is finished, as score / length^penalty, so re-ranking one n-best list (``--nbest`` as large as
  ``--beam``) gives exactly what a search with that penalty gives, without searching again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from fairseq_adv.corpora.lines import all_lines, joined
from fairseq_adv.scoring.languages import BY_LANGUAGE, DEFAULT, bleu_metric, tokenizer_for

LENPENS = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


class Hypothesis(NamedTuple):
    score: float  # log2 probability / length^penalty, as fairseq prints it
    tokens: str  # the H line: tokens as binarised, subwords joined if --remove-bpe was given
    text: str  # the D line: after fairseq's own detokenisation, if any
    length: int  # tokens of the model, end of sentence included


class Generation(NamedTuple):
    """A ``fairseq-generate`` output by sentence id; an id is the line number of the raw file, from 0."""

    nbest: Dict[int, List[Hypothesis]]
    references: Dict[int, str]


def read_generation(path: Path) -> Generation:
    """Parse the S/T/H/D/P lines of *path*; log lines in between are ignored."""
    nbest: Dict[int, List[Hypothesis]] = {}
    references: Dict[int, str] = {}
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            kind, _, rest = line.rstrip("\n").partition("-")
            label, _, payload = rest.partition("\t")
            if kind not in ("T", "H", "D", "P") or not label.isdigit():
                continue
            if kind == "T":
                references[int(label)] = payload
                continue
            hypotheses = nbest.setdefault(int(label), [])
            if kind == "H":
                score, _, tokens = payload.partition("\t")
                hypotheses.append(Hypothesis(float(score), tokens, tokens, 0))
            elif kind == "D":
                hypotheses[-1] = hypotheses[-1]._replace(text=payload.partition("\t")[2])
            else:
                hypotheses[-1] = hypotheses[-1]._replace(length=len(payload.split()))
    if not nbest:
        raise ValueError(f"{path} holds no hypotheses (H- lines): is it the output of fairseq-generate?")
    return Generation(nbest, references)


def best_hypotheses(generation: Generation, lenpen: float, searched_with: float) -> List[Hypothesis]:
    """The winner of each sentence, in the order of ids, under another length penalty than it was searched with."""

    def rescored(hypothesis: Hypothesis) -> float:
        return hypothesis.score * hypothesis.length ** (searched_with - lenpen)

    return [max(generation.nbest[key], key=rescored) for key in sorted(generation.nbest)]


def read_references(generation: Generation, path: Optional[Path], source: Path) -> List[str]:
    """The references from a raw file, or else from the T lines; one for every hypothesis, none left over."""
    if path is None:
        lines = [generation.references[key] for key in sorted(generation.references)]
    else:
        lines = all_lines(path)
    expected = range(len(lines)) if path else sorted(generation.references)
    missing = [key for key in expected if key not in generation.nbest]
    if missing or len(lines) != len(generation.nbest):
        raise ValueError(
            f"{source} has translations of {len(generation.nbest)} sentences, but {path or 'its T lines'} "
            f"has {len(lines)} references: {_which_is_longer(len(lines), len(generation.nbest), missing)}"
        )
    return lines


def _which_is_longer(references: int, hypotheses: int, missing: List[int]) -> str:
    if hypotheses > references:
        return f"the translations are longer, by {hypotheses - references}; are these the references of the same set?"
    longer = f"the references are longer, by {references - hypotheses}; " if references > hypotheses else ""
    return (
        f"{longer}the first missing ids are {missing[:5]}; run fairseq-generate with --required-batch-size-multiple 1, "
        "without --skip-invalid-size-inputs-valid-test, on the same set"
    )


def sacrebleu_scores(
    hypotheses: List[str], references: List[str], tokenize: str = DEFAULT, lowercase: bool = False
) -> Dict[str, object]:
    """sacreBLEU's BLEU and chrF2 with signatures, and the brevity ratio (system words / reference words)."""
    from sacrebleu.metrics import CHRF

    bleu, chrf = bleu_metric(tokenize, lowercase), CHRF(lowercase=lowercase)
    bleu_score = bleu.corpus_score(hypotheses, [references])
    chrf_score = chrf.corpus_score(hypotheses, [references])
    return {
        "bleu": bleu_score.score,
        "bleu_details": bleu_score.format(width=2),
        "bleu_signature": bleu.get_signature().format(),
        "chrf": chrf_score.score,
        "chrf_signature": chrf.get_signature().format(),
        "brevity_ratio": bleu_score.sys_len / bleu_score.ref_len,
        "brevity_penalty": bleu_score.bp,
        "sentences": len(hypotheses),
    }


def moses_tokens(lines: List[str], language: str) -> List[str]:
    """Moses tokenisation, tokens separated by blanks."""
    try:
        from sacremoses import MosesTokenizer
    except ImportError as error:
        raise ValueError(
            "the tokenised BLEU needs sacremoses: pip install sacremoses, or --tokens generated"
        ) from error
    tokenizer = MosesTokenizer(lang=language)
    return [tokenizer.tokenize(line, return_str=True, escape=False) for line in lines]


def plain_texts(hypotheses: List[Hypothesis], args: argparse.Namespace) -> List[str]:
    """The text that is scored: the D lines, or the tokens of the H lines put together by Moses's rules."""
    if not args.detokenize:
        return [hypothesis.text for hypothesis in hypotheses]
    try:
        from sacremoses import MosesDetokenizer
    except ImportError as error:
        raise ValueError("--detokenize needs sacremoses: pip install sacremoses") from error
    detokenizer = MosesDetokenizer(lang=args.lang)
    return [detokenizer.detokenize(hypothesis.tokens.split()) for hypothesis in hypotheses]


def tokenized_bleu(hypotheses: List[str], references: List[str]) -> float:
    """Unsmoothed corpus BLEU-4 on lines that are already tokenised, as ``fairseq-score`` and multi-bleu give it."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(hypotheses, [references]).score


def tune_lenpen(generation: Generation, references: List[str], args: argparse.Namespace) -> Dict[float, float]:
    """BLEU on the validation set for each length penalty."""
    metric = bleu_metric(args.sacrebleu_tokenize, args.lowercase, args.lang)
    scores = {}
    for lenpen in args.lenpens:
        texts = plain_texts(best_hypotheses(generation, lenpen, args.searched_with), args)
        scores[lenpen] = metric.corpus_score(texts, [references]).score
    return scores


def evaluate(args: argparse.Namespace) -> Dict[str, object]:
    """All numbers of one system, and its hypotheses under ``texts``/``tokens`` for whoever writes them."""
    bleu_metric(args.sacrebleu_tokenize, args.lowercase, args.lang)  # refuses before anything is read
    generation = read_generation(args.generated)
    references = read_references(generation, args.ref, args.generated)
    result: Dict[str, object] = {"lenpen": args.searched_with}
    if args.tune is not None:
        tuning = read_generation(args.tune)
        scores = tune_lenpen(tuning, read_references(tuning, args.tune_ref, args.tune), args)
        best = max(scores, key=lambda lenpen: (scores[lenpen], -abs(lenpen - 1.0)))
        result = {"lenpen": best, "valid_bleu": scores[best], "valid_bleu_by_lenpen": scores}
    winners = best_hypotheses(generation, float(result["lenpen"]), args.searched_with)  # type: ignore[arg-type]
    texts = plain_texts(winners, args)
    result.update(sacrebleu_scores(texts, references, args.sacrebleu_tokenize, args.lowercase))
    result["sacrebleu_tokenize"] = args.sacrebleu_tokenize
    if args.tokens == "moses":
        tokens = moses_tokens(texts, args.lang), moses_tokens(references, args.lang)
    else:
        kept = generation.references
        tokens = [winner.tokens for winner in winners], [kept[key] for key in sorted(kept)]
    result["tokenized_bleu"] = tokenized_bleu(*tokens)
    result["tokens"] = f"moses ({args.lang})" if args.tokens == "moses" else "as generated"
    if args.output is not None:
        files = {"test.hyp": texts, "test.ref": references, "test.tok.hyp": tokens[0], "test.tok.ref": tokens[1]}
        for name, lines in files.items():
            write_text(args.output / name, joined(lines))
        write_text(args.output / "score.json", json.dumps(result, indent=2) + "\n")
    return result


def write_text(path: Path, text: str) -> None:
    """Write under another name first: a file that is there is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="BLEU and chrF of what fairseq-generate printed.")
    parser.add_argument("generated", type=Path, help="output of fairseq-generate on the test set")
    parser.add_argument("--ref", type=Path, help="raw references, one a line (default: the T lines)")
    parser.add_argument("--tune", type=Path, help="output of fairseq-generate --nbest BEAM on the validation set")
    parser.add_argument("--tune-ref", type=Path, help="raw references of the validation set (default: the T lines)")
    parser.add_argument("--lenpens", type=float, nargs="+", default=LENPENS, help="length penalties to choose from")
    parser.add_argument("--searched-with", type=float, default=1.0, help="--lenpen of fairseq-generate (default: 1)")
    known = ", ".join(f"{language}: {name}" for language, name in BY_LANGUAGE.items())
    of = f"sacreBLEU's tokeniser for BLEU (default: by --lang, {known}, others: {DEFAULT})"
    parser.add_argument("--sacrebleu-tokenize", help=of)
    parser.add_argument("--lowercase", action="store_true", help="ignore case in BLEU and chrF")
    parser.add_argument("--detokenize", action="store_true", help="the hypotheses are Moses tokens: put them together")
    parser.add_argument(
        "--tokens",
        choices=["moses", "generated"],
        default="moses",
        help="for the tokenised BLEU: Moses on the text, or H and T lines as they are (default: moses)",
    )
    parser.add_argument("--lang", help="target language (default: the ending of --ref, else en)")
    parser.add_argument("--output", type=Path, help="folder for score.json, test.hyp, test.ref and their tokens")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    args = parser.parse_args(argv)
    args.lang = args.lang or (args.ref.suffix[1:] if args.ref is not None and args.ref.suffix else "en")
    args.sacrebleu_tokenize = args.sacrebleu_tokenize or tokenizer_for(args.lang)
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(argv)
    try:
        result = evaluate(args)
    except (ValueError, OSError) as error:
        print(f"score_bleu.py: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{result['bleu_details']}  [{result['bleu_signature']}]")
    print(f"chrF2 = {result['chrf']:.2f}  [{result['chrf_signature']}]")
    print(f"tokenised BLEU = {result['tokenized_bleu']:.2f}  [tokens: {result['tokens']}]")
    tuned = " (chosen on the validation set)" if args.tune else ""
    print(
        f"{result['sentences']} sentences, brevity ratio {result['brevity_ratio']:.3f}, "
        f"length penalty {result['lenpen']}{tuned}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
