"""Small real fairseq models and batches for unit tests."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any, Dict, Sequence

import torch
from fairseq.data import Dictionary, data_utils
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from torch import Tensor

ARCHITECTURES: Dict[str, Dict[str, Any]] = {
    "transformer": {"arch": "transformer"},
    "transformer_shared": {"arch": "transformer", "share_all_embeddings": True},
    "transformer_prenorm": {
        "arch": "transformer",
        "encoder_normalize_before": True,
        "decoder_normalize_before": True,
        "layernorm_embedding": True,
    },
    "lstm": {"arch": "lstm"},
    "lstm_bidirectional": {"arch": "lstm", "encoder_bidirectional": True},
    "fconv": {"arch": "fconv"},
    "lightconv": {"arch": "lightconv"},
}
_SIZES: Dict[str, Dict[str, Any]] = {
    "transformer": dict(
        encoder_embed_dim=16, encoder_ffn_embed_dim=32, encoder_layers=1, encoder_attention_heads=2,
        decoder_embed_dim=16, decoder_ffn_embed_dim=32, decoder_layers=1, decoder_attention_heads=2,
    ),
    "lightconv": dict(
        encoder_embed_dim=16, encoder_ffn_embed_dim=32, encoder_layers=1, encoder_attention_heads=2,
        decoder_embed_dim=16, decoder_ffn_embed_dim=32, decoder_layers=1, decoder_attention_heads=2,
        encoder_kernel_size_list=[3], decoder_kernel_size_list=[3], decoder_conv_dim=16,
        encoder_conv_type="lightweight", decoder_conv_type="lightweight", weight_softmax=True, weight_dropout=0.0,
        input_dropout=0.0, attention_dropout=0.0, relu_dropout=0.0,
    ),
    "lstm": dict(
        encoder_embed_dim=16, encoder_hidden_size=16, encoder_layers=1,
        decoder_embed_dim=16, decoder_hidden_size=16, decoder_layers=1, decoder_out_embed_dim=16,
    ),
    "fconv": dict(
        encoder_embed_dim=16, encoder_layers="[(16, 3)]", decoder_embed_dim=16, decoder_layers="[(16, 3)]",
        decoder_out_embed_dim=16,
    ),
}  # fmt: skip


def dictionary(words: int = 20) -> Dictionary:
    """A dictionary of *words* words beside the four special symbols."""
    result = Dictionary()
    for i in range(words):
        result.add_symbol(f"w{i}", n=words - i)
    return result


def toy_task(words: int = 20) -> Any:
    """As much of a task as models and criterions read."""
    shared = dictionary(words)

    class ToyTask:
        source_dictionary = target_dictionary = shared
        src_dict = tgt_dict = shared
        cfg = None

        def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
            raise NotImplementedError

        def begin_epoch(self, epoch: int, model: Any) -> None:
            pass

    return ToyTask()


def toy_model(name: str = "transformer", dropout: float = 0.0, seed: int = 1, **overrides: Any) -> Any:
    """One of :data:`ARCHITECTURES`, with 16-dimensional embeddings, in training mode."""
    settings = dict(ARCHITECTURES[name])
    arch = settings.pop("arch")
    args = Namespace(
        dropout=dropout,
        max_source_positions=64,
        max_target_positions=64,
        **{"criterion": "cross_entropy", **_SIZES[arch], **settings, **overrides},
    )
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(seed)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, toy_task()).train()


def toy_batch(
    src: Sequence[int] = (5, 3, 1), tgt: Sequence[int] = (4, 2, 6), seed: int = 1, first_id: int = 0
) -> Dict[str, Any]:
    """A batch as fairseq collates it: sources left-padded, targets right-padded; lengths without the final EOS."""
    words = dictionary()
    generator = torch.Generator().manual_seed(seed)

    def sentence(length: int) -> Tensor:
        body = torch.randint(words.nspecial, len(words), (length,), generator=generator)
        return torch.cat([body, torch.tensor([words.eos()])])

    sources, targets = [sentence(n) for n in src], [sentence(n) for n in tgt]

    def collate(rows: Sequence[Tensor], left_pad: bool, move_eos: bool = False) -> Tensor:
        return data_utils.collate_tokens(list(rows), words.pad(), words.eos(), left_pad, move_eos)

    return {
        "id": torch.arange(first_id, first_id + len(sources)),
        "nsentences": len(sources),
        "ntokens": sum(len(t) for t in targets),
        "net_input": {
            "src_tokens": collate(sources, True),
            "src_lengths": torch.tensor([len(s) for s in sources]),
            "prev_output_tokens": collate(targets, False, move_eos=True),
        },
        "target": collate(targets, False),
    }


def as_namespace(**values: Any) -> SimpleNamespace:
    """Options as attributes."""
    return SimpleNamespace(**values)
