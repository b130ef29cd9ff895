"""What a trained checkpoint predicts for the rows of a set, in their order, and its score on them.

RUN/score.json            {"set": …, "checkpoint": …, "subsets": {"test": {"accuracy": 0.86, "rows": 1494}, …}}
RUN/predictions.SUBSET    one class number or number a line, as the rows of BIN
RUN/targets.SUBSET        what it was compared with
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from fairseq_adv.scoring.sentence_metrics import sentence_scores
from fairseq_adv.whole_files import write_text

SCORE = "score.json"
Numbers = List[float]


def load_checkpoint(checkpoint: Path, data: Path) -> Tuple[Any, Any, str]:
    """Model, task and name of the head of a training; ``FileNotFoundError`` without one.

    The plugin has to be registered (``fairseq_adv.register()``).
    """
    from fairseq import checkpoint_utils

    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint {checkpoint}: train first")
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    return models[0].eval(), task, cfg.criterion.classification_head_name


def predict(model: Any, task: Any, head: str, subset: str, batch_size: int = 64) -> Tuple[Numbers, Numbers]:
    """Predictions and targets of the rows of *subset*, in the order of the file."""
    import torch

    dataset = task.load_dataset(subset) or task.dataset(subset)
    device = next(model.parameters()).device
    found: Dict[int, Tuple[float, float]] = {}
    with torch.no_grad():
        for sample in _batches(dataset, batch_size):
            inputs = {key: value.to(device) for key, value in sample["net_input"].items()}
            scores, _ = model(**inputs, features_only=True, classification_head_name=head)
            values = scores.view(-1) if task.cfg.regression_target else scores.argmax(dim=1)
            rows = zip(values.tolist(), sample["target"].view(-1).tolist())
            found.update(zip(sample["id"].tolist(), rows))
    predicted, targets = zip(*(found[row] for row in range(len(dataset))))
    return list(predicted), list(targets)


def _batches(dataset: Any, size: int) -> Iterator[Any]:
    order = dataset.ordered_indices()
    for start in range(0, len(order), size):
        yield dataset.collater([dataset[index] for index in order[start : start + size]])


def score_run(run: Path, data: Path, checkpoint: str = "checkpoint_best.pt") -> Dict[str, Any]:
    """Score the run on the validation set and on what its set is scored on; what was written to ``score.json``."""
    import torch

    facts = json.loads((data / "set.json").read_text(encoding="utf-8"))
    path = run / "checkpoints" / checkpoint
    model, task, head = load_checkpoint(path, data)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    subsets: Dict[str, Dict[str, float]] = {}
    for subset in dict.fromkeys(["valid", *facts["scored"]]):
        predicted, targets = predict(model, task, head, subset)
        for name, values in (("predictions", predicted), ("targets", targets)):
            write_text(run / f"{name}.{subset}", "".join(f"{value!r}\n" for value in values))
        subsets[subset] = {**sentence_scores(facts["metrics"], predicted, targets), "rows": len(targets)}
    result = {"set": facts["name"], "metrics": facts["metrics"], "checkpoint": checkpoint, "subsets": subsets}
    write_text(run / SCORE, json.dumps(result, indent=2) + "\n")
    return result


def read_numbers(path: Path) -> Numbers:
    return [float(line) for line in path.read_text(encoding="utf-8").split()]
