"""Score what ``fairseq-generate`` printed: BLEU and chrF on plain text, and the tokenised BLEU of papers.

- **BLEU** and **chrF** are sacreBLEU's (Post 2018), computed on detokenised text, printed with the signature
  that makes them comparable. They equal ``sacrebleu test.ref -i test.hyp -m bleu chrf`` to the last digit.
- **Tokenised BLEU** is the number of most papers of this field: case-sensitive, unsmoothed, on Moses tokens.
  It equals ``fairseq-score --sys test.tok.hyp --ref test.tok.ref``. It cannot be compared across tokenisers.
- **Tokenised data.** If what was binarised are Moses tokens, ``--detokenize`` makes plain text of the hypotheses, and
  ``--tokens generated`` takes them as they are for the tokenised BLEU. ``--lowercase`` is for a set-up that
  lower-cases: BLEU and chrF then ignore case, and their signatures say so.
- **Languages without blanks.** BLEU's tokeniser goes by the language (``--lang``, by default the ending of ``--ref``):
  zh, ja-mecab and ko-mecab for Chinese, Japanese and Korean, characters for Thai and others; the signature names it.
- **Length penalty.** ``--tune valid.out --tune-ref raw/valid.de`` picks the penalty of the highest BLEU on
  the validation set from ``--lenpens`` and applies it to the test set. It enters fairseq's beam search only when
  a hypothesis is finished, as score / length^penalty, so re-ranking one n-best list (``--nbest`` as large as
  ``--beam``) gives exactly what a search with that penalty gives, without searching again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from fairseq_adv.corpora.lines import joined
from fairseq_adv.scoring.generation import Generation, Hypothesis, best_hypotheses, read_generation, read_references
from fairseq_adv.scoring.languages import BY_LANGUAGE, DEFAULT, bleu_metric, tokenizer_for
from fairseq_adv.whole_files import write_text

LENPENS = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
_TOKENIZERS = ", ".join(f"{language}: {name}" for language, name in BY_LANGUAGE.items())


@dataclass(frozen=True)
class Scoring:
    """What is scored against what, and how."""

    generated: Path = field(metadata={"positional": True, "help": "output of fairseq-generate on the test set"})
    ref: Optional[Path] = field(default=None, metadata={"help": "raw references, one a line (default: the T lines)"})
    tune: Optional[Path] = field(
        default=None, metadata={"help": "output of fairseq-generate --nbest BEAM on the validation set"}
    )
    tune_ref: Optional[Path] = field(
        default=None, metadata={"help": "raw references of the validation set (default: the T lines)"}
    )
    lenpens: Sequence[float] = field(default=LENPENS, metadata={"help": "length penalties to choose from"})
    searched_with: float = field(default=1.0, metadata={"help": "--lenpen of fairseq-generate"})
    sacrebleu_tokenize: Optional[str] = field(
        default=None,
        metadata={"help": f"sacreBLEU's tokeniser for BLEU (default: by --lang, {_TOKENIZERS}, others: {DEFAULT})"},
    )
    lowercase: bool = field(default=False, metadata={"help": "ignore case in BLEU and chrF"})
    detokenize: bool = field(default=False, metadata={"help": "the hypotheses are Moses tokens: put them together"})
    tokens: str = field(
        default="moses",
        metadata={
            "help": "for the tokenised BLEU: Moses on the text, or H and T lines as they are",
            "choices": ["moses", "generated"],
        },
    )
    lang: Optional[str] = field(
        default=None, metadata={"help": "target language (default: the ending of --ref, else en)"}
    )
    output: Optional[Path] = field(
        default=None, metadata={"help": "folder for score.json, test.hyp, test.ref and their tokens"}
    )

    @property
    def language(self) -> str:
        return self.lang or (self.ref.suffix[1:] if self.ref is not None and self.ref.suffix else "en")

    @property
    def tokenizer(self) -> str:
        """Of sacreBLEU's BLEU."""
        return self.sacrebleu_tokenize or tokenizer_for(self.language)


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


def plain_texts(hypotheses: List[Hypothesis], scoring: Scoring) -> List[str]:
    """The text that is scored: the D lines, or the tokens of the H lines put together by Moses's rules."""
    if not scoring.detokenize:
        return [hypothesis.text for hypothesis in hypotheses]
    try:
        from sacremoses import MosesDetokenizer
    except ImportError as error:
        raise ValueError("--detokenize needs sacremoses: pip install sacremoses") from error
    detokenizer = MosesDetokenizer(lang=scoring.language)
    return [detokenizer.detokenize(hypothesis.tokens.split()) for hypothesis in hypotheses]


def tokenized_bleu(hypotheses: List[str], references: List[str]) -> float:
    """Unsmoothed corpus BLEU-4 on lines that are already tokenised, as ``fairseq-score`` and multi-bleu give it."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(hypotheses, [references]).score


def tune_lenpen(generation: Generation, references: List[str], scoring: Scoring) -> Dict[float, float]:
    """BLEU on the validation set for each length penalty."""
    metric = bleu_metric(scoring.tokenizer, scoring.lowercase, scoring.language)
    scores = {}
    for lenpen in scoring.lenpens:
        texts = plain_texts(best_hypotheses(generation, lenpen, scoring.searched_with), scoring)
        scores[lenpen] = metric.corpus_score(texts, [references]).score
    return scores


def score(scoring: Scoring) -> Dict[str, object]:
    """All numbers of one system; writes them with the texts to the output folder, if there is one."""
    bleu_metric(scoring.tokenizer, scoring.lowercase, scoring.language)  # refuses before anything is read
    generation = read_generation(scoring.generated)
    references = read_references(generation, scoring.ref, scoring.generated)
    lenpen, result = scoring.searched_with, {"lenpen": scoring.searched_with}
    if scoring.tune is not None:
        tuning = read_generation(scoring.tune)
        scores = tune_lenpen(tuning, read_references(tuning, scoring.tune_ref, scoring.tune), scoring)
        lenpen = max(scores, key=lambda lenpen: (scores[lenpen], -abs(lenpen - 1.0)))
        result = {"lenpen": lenpen, "valid_bleu": scores[lenpen], "valid_bleu_by_lenpen": scores}  # type: ignore[dict-item]
    winners = best_hypotheses(generation, lenpen, scoring.searched_with)
    return _with_texts(result, winners, generation, references, scoring)  # type: ignore[arg-type]


def _with_texts(
    result: Dict[str, object],
    winners: List[Hypothesis],
    generation: Generation,
    references: List[str],
    scoring: Scoring,
) -> Dict[str, object]:
    texts, language = plain_texts(winners, scoring), scoring.language
    result.update(sacrebleu_scores(texts, references, scoring.tokenizer, scoring.lowercase))
    result["sacrebleu_tokenize"] = scoring.tokenizer
    if scoring.tokens == "moses":
        tokens = moses_tokens(texts, language), moses_tokens(references, language)
    else:
        kept = generation.references
        tokens = [winner.tokens for winner in winners], [kept[key] for key in sorted(kept)]
    result["tokenized_bleu"] = tokenized_bleu(*tokens)
    result["tokens"] = f"moses ({language})" if scoring.tokens == "moses" else "as generated"
    if scoring.output is not None:
        files = {"test.hyp": texts, "test.ref": references, "test.tok.hyp": tokens[0], "test.tok.ref": tokens[1]}
        for name, lines in files.items():
            write_text(scoring.output / name, joined(lines))
        write_text(scoring.output / "score.json", json.dumps(result, indent=2) + "\n")
    return result


def as_text(result: Dict[str, object]) -> str:
    """The numbers of :func:`score` for people, in four lines."""
    tuned = " (chosen on the validation set)" if "valid_bleu" in result else ""
    return "\n".join(
        [
            f"{result['bleu_details']}  [{result['bleu_signature']}]",
            f"chrF2 = {result['chrf']:.2f}  [{result['chrf_signature']}]",
            f"tokenised BLEU = {result['tokenized_bleu']:.2f}  [tokens: {result['tokens']}]",
            f"{result['sentences']} sentences, brevity ratio {result['brevity_ratio']:.3f}, "
            f"length penalty {result['lenpen']}{tuned}",
        ]
    )
