"""The training data exactly as a training run reads them: its task builds them from its own options."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, List, Sequence

from fairseq_adv.data.binarised import BinarisedCorpus, BinarisedSide
from fairseq_adv.data.trained_pairs import sides_of, trained_pairs, training_fingerprint


def open_training_corpus(words: Sequence[str]) -> BinarisedCorpus:
    """The training pairs of ``fairseq-train WORDS``, and which of them are not too long to be trained.

    Whatever changes the data there does so here: ``--upsample-primary``, ``--truncate-source``, ``--dataset-impl``, a
    task's own tokens. With ``--arch`` the model is built, since it too may limit the lengths. Raises ``ValueError`` for
    a task whose training data are no sentence pairs.
    """
    from fairseq import tasks

    has_model = any(word.partition("=")[0] in ("--arch", "-a") for word in words)
    cfg = _configuration([*words, *([] if has_model else ["--arch", "transformer"])])  # fairseq parses with one alone
    if ":" in str(cfg.task.data):
        raise ValueError(f"DATA {cfg.task.data} names several directories: ids differ between them, so give one")
    task = tasks.setup_task(cfg.task)
    split = cfg.dataset.train_subset
    task.load_dataset(split, combine=True, epoch=1)
    dataset = task.dataset(split)
    fingerprint = training_fingerprint(task, dataset)
    words_of = {side: getattr(dataset, side, None) for side in sides_of(dataset)}
    if any(sentences is None for sentences in words_of.values()):
        raise ValueError(
            f"{type(dataset).__name__} of --task {cfg.task._name} has no {' and '.join(words_of)} sentences to read"
        )
    limit = task.build_model(cfg.model).max_positions() if has_model else None
    return BinarisedCorpus(
        _language(cfg, task, "source_lang"),
        _language(cfg, task, "target_lang"),
        BinarisedSide(dataset.src, task.source_dictionary),
        BinarisedSide(dataset.tgt, task.target_dictionary) if "tgt" in words_of else None,
        fingerprint,
        trained_pairs(task, dataset, limit, cfg.dataset.max_tokens),
    )


def open_sentence_corpus(data: Path, words: Sequence[str]) -> BinarisedCorpus:
    """The training rows of a sentence task in the directory *data*; *words* are more options of ``fairseq-train``.

    Whether they have classes or numbers is told from the files.
    """
    classes = data / "label" / "dict.txt"
    outputs = ["1", "--regression-target"]
    if classes.is_file():
        outputs = [str(len(classes.read_text("utf-8").splitlines()))]
    task = ["--task", "adversarial_sentence_prediction", "--criterion", "sentence_prediction"]
    return open_training_corpus([str(data), *task, "--num-classes", *outputs, *words])


def _language(cfg: Any, task: Any, name: str) -> str:
    return str(getattr(cfg.task, name, None) or getattr(task.cfg, name, None) or "")


def _configuration(words: List[str]) -> Any:
    """What ``fairseq-train WORDS`` makes of its options."""
    from fairseq import options, utils
    from fairseq.dataclass.initialize import add_defaults
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_adv

    fairseq_adv.register()
    user = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    user.add_argument("--user-dir")
    user_dir = user.parse_known_args(words)[0].user_dir
    if user_dir is not None and not _is_this_package(user_dir):
        utils.import_user_module(argparse.Namespace(user_dir=user_dir))
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), input_args=words))
    add_defaults(cfg)
    return cfg


def _is_this_package(user_dir: str) -> bool:
    own = Path(__file__).parents[1]
    return os.path.basename(user_dir.rstrip("/")) == own.name or (
        os.path.exists(user_dir) and os.path.samefile(user_dir, own)
    )
