"""Converted models against a plain forward pass of the original, as fairseq loads it."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from safetensors.torch import load_file, save_file

import fairseq_adv
from fairseq_adv.cli.main import main
from fairseq_adv.encoders.convert import convert_bert, read_facts
from fairseq_adv.encoders.vocabulary import Vocabulary, load_tokenizer
from tests.unit.encoders import tiny_bert

fairseq_adv.register()

SENTENCES = ["the dogs bark .", "a dog runs quietly , unheard", "bark", "the the the the the the the ,"]


def fairseq_model(folder: Path):
    """The model that ``fairseq-train`` builds from ``train-options``, with the checkpoint's parameters."""
    options = (folder / "train-options").read_text().split()
    args = Namespace(
        **{name.strip("-").replace("-", "_"): _value(text) for name, text in zip(options[::2], options[1::2])}
    )
    ARCH_CONFIG_REGISTRY[args.arch](args)
    dictionary = SentencePredictionTask.load_dictionary(str(folder / "dict.txt"))
    model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, Namespace(source_dictionary=dictionary))
    state = checkpoint_utils.load_checkpoint_to_cpu(str(folder / "model.pt"))
    model.load_state_dict(state["model"], strict=True)
    return model.double().eval(), dictionary  # fairseq computes gelu in fp32 all the same


def _value(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def as_fairseq_does(dictionary, tokens) -> torch.Tensor:
    """Columns of the task: ``--init-token 0``, the line, ``</s>``."""
    line = dictionary.encode_line(" ".join(tokens), add_if_not_exist=False).long()
    return torch.cat([torch.tensor([0]), line]).unsqueeze(0)


@pytest.mark.parametrize("num_layers", [None, 2])
@pytest.mark.parametrize(
    ("kind", "first", "prefix"), [("bert", 0, "bert."), ("roberta", 2, "roberta."), ("xlm-roberta", 2, "")]
)
def test_features_are_those_of_the_original(tmp_path, kind, first, prefix, num_layers):
    source = tiny_bert.write_model(tmp_path / "original", prefix, model_type=kind)
    # a folder's own tokenizer counts, whatever the type of the model says
    convert_bert(f"hf:{source}", tmp_path / "fairseq", num_layers)
    model, dictionary = fairseq_model(tmp_path / "fairseq")
    vocabulary = Vocabulary(load_tokenizer(str(tmp_path / "fairseq/tokenizer")))
    settings = tiny_bert.config(model_type=kind)
    for sentence, tokens in zip(SENTENCES, vocabulary.split(SENTENCES)):
        columns = as_fairseq_does(dictionary, tokens)
        with torch.no_grad():
            ours = model(columns, features_only=True)[0][0]
        ids = load_tokenizer(str(source))(sentence)["input_ids"]
        expected = tiny_bert.features(tiny_bert.parameters(settings), settings, ids, first, num_layers or 3)
        assert (ours - expected).abs().max() < 5e-6, sentence


def test_the_eps_of_fairseqs_own_roberta_gives_other_features(tmp_path):
    convert_bert(f"hf:{tiny_bert.write_model(tmp_path / 'original')}", tmp_path / "fairseq")
    model, dictionary = fairseq_model(tmp_path / "fairseq")
    columns = as_fairseq_does(dictionary, ["the", "dog"])
    with torch.no_grad():
        ours = model(columns, features_only=True)[0]
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                assert module.eps == 1e-3
                module.eps = 1e-5
        assert (model(columns, features_only=True)[0] - ours).abs().max() > 1e-4


def test_masked_words_are_predicted_as_before(tmp_path):
    source = tiny_bert.write_model(tmp_path / "original")
    state = load_file(source / "model.safetensors")
    transform = {"dense.weight": torch.randn(16, 16), "dense.bias": torch.randn(16)}
    transform.update({"LayerNorm.gamma": torch.randn(16), "LayerNorm.beta": torch.randn(16)})  # names of early files
    bias = torch.randn(len(tiny_bert.VOCABULARY))
    head = {f"cls.predictions.transform.{name}": value for name, value in transform.items()}
    save_file({**state, **head, "cls.predictions.bias": bias}, source / "model.safetensors")
    convert_bert(f"hf:{source}", tmp_path / "fairseq")
    model, dictionary = fairseq_model(tmp_path / "fairseq")
    columns = as_fairseq_does(dictionary, ["dog", "bark"])
    transform, bias = {name: value.double() for name, value in transform.items()}, bias.double()
    words = state["bert.embeddings.word_embeddings.weight"].double()
    with torch.no_grad():
        features, scores = model(columns, features_only=True)[0], model(columns)[0]
    x = torch.nn.functional.gelu(features @ transform["dense.weight"].T + transform["dense.bias"])
    x = torch.nn.functional.layer_norm(x, (16,), transform["LayerNorm.gamma"], transform["LayerNorm.beta"], 1e-3)
    expected = x @ words.T + bias
    bark = scores[..., dictionary.index("bark")], expected[..., tiny_bert.VOCABULARY.index("bark")]
    cls = scores[..., dictionary.bos()], expected[..., tiny_bert.VOCABULARY.index("[CLS]")]
    assert torch.allclose(*bark, atol=5e-6) and torch.allclose(*cls, atol=5e-6)


def test_the_checkpoint_holds_nothing_but_tensors_and_containers(tmp_path):
    convert_bert(f"hf:{tiny_bert.write_model(tmp_path / 'original')}", tmp_path / "fairseq")
    registered = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        state = torch.load(tmp_path / "fairseq/model.pt", weights_only=True)
    finally:
        torch.serialization.add_safe_globals(registered)
    assert set(state) == {"model", "extra_state", "optimizer_history", "last_optimizer_state"}


def test_rows_beyond_the_tokenizer_are_left_out_and_a_missing_mask_is_zero(tmp_path):
    words = [word for word in tiny_bert.VOCABULARY if word != "[MASK]"]
    source = tiny_bert.write_model(tmp_path / "original", vocab_size=len(words) + 8, words=words)
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "mask_token": None}))
    facts = convert_bert(f"hf:{source}", tmp_path / "fairseq")
    model, dictionary = fairseq_model(tmp_path / "fairseq")
    weight = model.encoder.sentence_encoder.embed_tokens.weight
    assert facts["symbols"] == len(dictionary) == len(weight) == len(words) + 1
    assert dictionary[len(dictionary) - 1] == "<mask>" and not weight[-1].any()


def test_what_cannot_be_converted_is_refused(tmp_path, capsys):
    def fails(message: str, *options: str, **changes) -> None:
        source = tiny_bert.write_model(tmp_path / f"model{len(list(tmp_path.iterdir()))}", **changes)
        assert main(["convert-bert", f"hf:{source}", "--output", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err

    fails("is of type 'distilbert': only bert, roberta", model_type="distilbert")
    fails("has the activation 'silu'", hidden_act="silu")
    fails("has relative_key positions", position_embedding_type="relative_key")
    fails("--layers must be in [1, 3], the layers of the model, got 4", "--layers", "4")
    fails("has a token </s>, which fairseq's dictionaries use", words=[*tiny_bert.VOCABULARY, "</s>"])
    assert main(["convert-bert", "bert-base-uncased", "--output", str(tmp_path / "out")]) == 2
    assert "give hf:PATH_OR_NAME" in capsys.readouterr().err
    assert main(["convert-bert", f"hf:{tmp_path}", "--output", str(tmp_path / "out")]) == 2
    assert "there is no config.json" in capsys.readouterr().err


def test_the_folder_is_whole_or_not_there(tmp_path, capsys, monkeypatch):
    source = tiny_bert.write_model(tmp_path / "original")
    words = ["convert-bert", f"hf:{source}", "--output", str(tmp_path / "out")]

    def full(*args: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("torch.save", full)
        assert main(words) == 2
    assert not (tmp_path / "out").exists() and main(words) == 0 and read_facts(tmp_path / "out")["layers"] == 3
    assert main(words) == 2 and "out is there already" in capsys.readouterr().err


def test_a_folder_without_a_converted_model_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="fairseq-adv convert-bert hf:MODEL --output"):
        read_facts(tmp_path)
