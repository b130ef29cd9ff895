"""Adding a perturbation to word embeddings inside any encoder-decoder, without touching the model's code.

δ is added to the raw output of ``embed_tokens``, before scaling, positions, LayerNorm and dropout.
Encoder and decoder may hold the *same* embedding module, so the hook asks which of the two is running.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional

from torch import Tensor, nn

from fairseq_adv.perturb.buffers import MovingBuffers
from fairseq_adv.perturb.layout import Perturbation, place_on_tokens

# side -> where a model may have the module that embeds its words, as ``embed_tokens``
_OWNERS = {"src": ("encoder", "encoder.sentence_encoder"), "tgt": ("decoder",)}

# (side, embeddings B x S x D, tokens B x S) -> embeddings B x S x D
Transform = Callable[[str, Tensor, Tensor], Tensor]


class EmbeddingHook:
    """Hooks on the encoder and the decoder of a model that add δ while :meth:`adding` is open.

    *pads* maps each side that may be perturbed to its padding index; ``dims`` maps it to its embedding
    size (known at once for ``nn.Embedding``, else after a forward pass). Raises ``ValueError`` for a model without
    the encoder, decoder or ``embed_tokens`` that a side needs, and for a compiled model, which would
    ignore the hooks without a word.
    """

    def __init__(self, model: nn.Module, pads: Dict[str, int]) -> None:
        refuse_compiled(model)
        self.model = model
        self.pads = pads
        self.buffers = MovingBuffers(model)
        self.dims: Dict[str, int] = {}
        self._transform: Optional[Transform] = None
        self._running: List[str] = []  # the sides whose module is on the call stack, innermost last
        self._handles: List[Any] = []
        embeddings = {}
        for side in pads:
            module = owner_of_embeddings(model, side)
            embedding: nn.Module = module.embed_tokens  # type: ignore[assignment]
            embeddings[id(embedding)] = embedding
            dim = getattr(embedding, "embedding_dim", None)
            if isinstance(dim, int):
                self.dims[side] = dim
            self._hook_owner(module, side)
        for embedding in embeddings.values():  # a shared embedding is hooked once
            self._handles.append(embedding.register_forward_hook(self._apply))

    def _hook_owner(self, module: nn.Module, side: str) -> None:
        def enter(*_: Any) -> None:
            self._running.append(side)

        def leave(*_: Any) -> None:
            if self._running:
                self._running.pop()

        self._handles.append(module.register_forward_pre_hook(enter))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _apply(self, _: nn.Module, inputs: Any, output: Tensor) -> Optional[Tensor]:
        if not self._running:
            return None
        side = self._running[-1]
        self.dims[side] = output.size(-1)
        return None if self._transform is None else self._transform(side, output, inputs[0])

    @contextmanager
    def transforming(self, transform: Optional[Transform]) -> Iterator[None]:
        """While open, every forward pass of the model sees what *transform* makes of its word embeddings."""
        self._running.clear()
        self._transform = transform
        try:
            yield
        finally:
            self._transform = None
            self._running.clear()

    def adder(self, delta: Perturbation) -> Transform:
        """The transform x + δ."""

        def add(side: str, embeddings: Tensor, tokens: Tensor) -> Tensor:
            if side not in delta.values:
                return embeddings
            placed = place_on_tokens(delta.values[side], tokens, self.pads[side])
            return embeddings + placed.to(embeddings.dtype)

        return add

    def cutter(self, keep: Dict[str, Tensor]) -> Transform:
        """The transform that zeroes embeddings of words; *keep* is ``B x L`` (bool, canonical layout) for each side."""

        def cut(side: str, embeddings: Tensor, tokens: Tensor) -> Tensor:
            if side not in keep:
                return embeddings
            weight = keep[side].to(embeddings.dtype).unsqueeze(-1)
            return embeddings * place_on_tokens(weight, tokens, self.pads[side])

        return cut

    def adding(self, delta: Perturbation) -> ContextManager[None]:
        """While open, every forward pass of the model sees x + δ."""
        return self.transforming(self.adder(delta))

    def remove(self) -> None:
        """Take all hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def owner_of_embeddings(model: nn.Module, side: str) -> nn.Module:
    """The module of *model* that embeds the words of *side* by its ``embed_tokens``.

    Raises ``ValueError`` if there is none.
    """
    for path in _OWNERS[side]:
        module: Any = model
        for name in path.split("."):
            module = getattr(module, name, None)
        if isinstance(getattr(module, "embed_tokens", None), nn.Module):
            return module
    raise ValueError(
        f"cannot perturb side {side!r}: {type(model).__name__} has no {_OWNERS[side][0]}.embed_tokens; "
        f"choose the other side with --adv-sides or a model with word embeddings there"
    )


def refuse_compiled(model: nn.Module) -> None:
    """Raise ``ValueError`` if *model* or a part of it went through ``torch.compile``."""
    for name, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            where = f"module {name!r}" if name else "the model"
            raise ValueError(
                f"{where} is compiled: hooks on word embeddings would be ignored; train without torch.compile"
            )


@contextmanager
def without_activation_checkpoints(model: nn.Module) -> Iterator[None]:
    """Run wrapped layers directly: re-computing checkpoints work with ``backward`` but not with ``autograd.grad``.

    Such layers keep their own forward under ``precheckpoint_forward``; the pass then holds all its activations.
    """
    wrapped = [m for m in model.modules() if "precheckpoint_forward" in vars(m)]
    saved = [m.forward for m in wrapped]
    try:
        for module in wrapped:
            module.forward = module.precheckpoint_forward  # type: ignore[assignment]
        yield
    finally:
        for module, forward in zip(wrapped, saved):
            module.forward = forward
