"""No update waits for a GPU oftener than fairseq's own does: counted without one, refused by torch with one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.integration.running import build_trainer, default_args, epoch_batches
from tests.integration.training import method_options
from tests.integration.waiting_reads import counted_reads

PLAIN = "label_smoothed_cross_entropy"
CASES = {
    **{f"{name}_label_smoothed": 1 for name in ("smart", "r3f", "rdrop", "simcut", "scala", "vat", "freelb")},
    **{f"{name}_label_smoothed": 1 for name in ("disadv", "conadv", "freeat")},
    "scala_label_smoothed ce": 1,
    "smart_label_smoothed bregman": 1,
    "r3f_label_smoothed concat": 1,
    "r3f_label_smoothed recompute": 1,
    "r3f_label_smoothed fraction": 1,
    "conadv_label_smoothed concat": 1,
    "arch_label_smoothed": 1,  # a refresh
    "arch_label_smoothed cached": 2,  # from the cache
    "arch_label_smoothed fused": 1,
    "arch_label_smoothed fused cached": 2,
    "arch_label_smoothed cheaper": 2,  # a refresh of the cached pairs alone, on the ascent's last pass
}
MICRO_BATCHES = 2

# (where, what) -> why it waits for nothing, and how often it may be in a micro-batch; None: in every pass
ON_THE_CPU = {
    ("perturb/rng.py reseed_from_state", "_local_scalar_dense"): ("a draw of the CPU's generator", 3),
    ("perturb/carried.py take", "tolist"): ("ids as they lay on the CPU", 1),
    ("perturb/carried.py put", "tolist"): ("ids as they lay on the CPU", 1),
    ("data/cached_perturbations.py serve", "numpy"): ("what was read from the cache, before it is copied", 3),
    ("criterions/arch.py _look_at", "cpu"): ("a batch before its turn, on the CPU", 3),
    ("criterions/arch.py _look_at", "numpy"): ("a batch before its turn, on the CPU", 3),
    ("criterions/frame/part.py chosen_rows", "numpy"): ("ids as they lay on the CPU", 1),
    ("compat/on_cpu.py note", "_local_scalar_dense"): ("a batch that has yet to be moved", 4),
    ("fairseq/models/transformer/transformer_encoder.py forward_scriptable", "_local_scalar_dense"): (
        "a constant, made on the CPU",
        None,
    ),
    ("fairseq/modules/sinusoidal_positional_embedding.py forward", "_local_scalar_dense"): (
        "a shape, made a tensor on the CPU",
        None,
    ),
}
# (where, what) -> why it is there, and how often it may be in an update beside those of plain training
PER_UPDATE = {
    ("criterions/frame/training_log.py read_at_once", "tolist"): (
        "one copy of the method's own columns, where fairseq reads its columns one by one",
        1,
    ),
    ("fairseq/logging/meters.py safe_round", "_local_scalar_dense"): ("fairseq's own columns", 0),
}


@pytest.fixture(scope="module")
def reads_of(tiny_corpus, tmp_path_factory):
    """The reads of the second update of the epoch in which a case is what its name says."""
    counted = {}

    def count(case):
        if case not in counted:
            folder = tmp_path_factory.mktemp("reads")
            options = method_options(case.removesuffix(" cached"))
            args = [*default_args(tiny_corpus, folder), *options, "--max-tokens", "600", "--update-freq", "2"]
            trainer = build_trainer(args).trainer
            for epoch in range(1, CASES.get(case, 1) + 1):
                counted[case] = second_update(trainer, epoch)
        return counted[case]

    return count


def second_update(trainer, epoch):
    reads: Counter[Any] = Counter()
    for number, batches in enumerate(epoch_batches(trainer, epoch)):
        assert len(batches) == MICRO_BATCHES or number > 1
        if number == 1:
            with counted_reads() as reads:
                trainer.train_step(batches)
        else:
            trainer.train_step(batches)
    return reads


@pytest.mark.parametrize("case", CASES)
def test_no_read_that_plain_training_has_not(reads_of, case):
    plain, reads = reads_of(PLAIN), reads_of(case)
    for read, count in reads.items():
        if read in ON_THE_CPU:
            _, allowed = ON_THE_CPU[read]
            assert allowed is None or count <= allowed * MICRO_BATCHES, f"{case}: {count} times {read}"
        else:
            _, more = PER_UPDATE.get(read, ("", 0))
            assert count <= plain[read] + more, f"{case}: {count} times {read}, plain training {plain[read]} times"


def test_padding_is_asked_once_and_on_the_cpu(reads_of):
    """Without that each encoder layer and each decoder would ask in each pass."""
    reads = reads_of(PLAIN)
    encoder = "fairseq/models/transformer/transformer_encoder.py forward_scriptable", "_local_scalar_dense"
    assert reads[encoder] == MICRO_BATCHES  # the constant alone
    assert not [place for place, _ in reads if "transformer_decoder" in place]
    assert reads["compat/on_cpu.py answering", "_local_scalar_dense"] == 0


def test_the_tables_have_no_row_too_many(reads_of):
    seen = set().union(*(reads_of(case) for case in (PLAIN, *CASES)))
    rows = {*ON_THE_CPU, *PER_UPDATE} - {("criterions/arch.py _look_at", kind) for kind in ("cpu", "numpy")}
    assert rows - seen - {("compat/on_cpu.py note", "_local_scalar_dense")} == set()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.numpy(),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: x.masked_select(x > 1),
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_a_read_is_seen(read):
    values = torch.tensor([1.0, 2.0])
    with counted_reads() as reads:
        values.exp().masked_fill(values > 1, 0.0).index_select(0, torch.zeros(1, dtype=torch.long)).to(values.device)
    assert not reads
    with counted_reads() as reads:
        read(values)
    assert sum(reads.values()) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's sync debug mode needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_torch_sees_no_synchronisation_beside_plain_training(tiny_corpus, tmp_path, case):
    waits = {each: synchronisations(tiny_corpus, tmp_path / str(i), each) for i, each in enumerate((PLAIN, case))}
    assert waits[case] <= waits[PLAIN] + 1  # the log's own columns


def synchronisations(data, folder, case):
    """Warnings of torch's sync debug mode in the second update."""
    import warnings

    options = [word for word in default_args(data, folder) if word != "--cpu"]
    trainer = build_trainer([*options, *method_options(case.removesuffix(" cached")), "--max-tokens", "600"]).trainer
    for epoch in range(1, CASES.get(case, 1) + 1):
        for number, batches in enumerate(epoch_batches(trainer, epoch)):
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn" if number == 1 else "default")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.train_step(batches)
            torch.cuda.set_sync_debug_mode("default")
            if number == 1:
                waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return waits
