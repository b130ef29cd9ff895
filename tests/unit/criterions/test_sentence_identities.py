"""Where every method on sentences must be ``sentence_prediction``, bit for bit: without strength, and in evaluation."""

from __future__ import annotations

import pickle
from typing import Any, Dict

import pytest
import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.training_log import LOG_KEYS
from fairseq_adv.criterions.heads.sentence import SentenceHead
from tests.unit.criterions.updates import honoured, make_criterion, run_update, same_bits
from tests.unit.sentence_models import sentence_batch, sentence_model, sentence_task

OURS = {name: cls for name, cls in CRITERION_REGISTRY.items() if issubclass(cls, AdversarialCriterion)}
METHODS = sorted(name for name, cls in OURS.items() if cls.head_type is SentenceHead)
IN_ONE_UPDATE = [name for name in METHODS if not name.startswith("arch")]  # ARCH begins with an epoch
CLASSES = [3, 1]
SHARED = {"adv_outer_masks": "shared"}
NO_RADIUS: Dict[str, Dict[str, Any]] = {
    "smart": {"adv_eps": 0.0, **SHARED},
    "smart detached": {"adv_eps": 0.0, "adv_detach_clean": True, **SHARED},
    "smart without steps": {"adv_steps": 0, "adv_init": "zero", **SHARED},
    "r3f": {"r3f_sigma": 0.0, **SHARED},
    "vat": {"vat_eps": 0.0, **SHARED},
    "vat of radius 0 at present": {"adv_radius_schedule": "0@0", **SHARED},
    "rdrop": {"rdrop_alpha": 0.0},
    "simcut": {"simcut_p": 0.0, **SHARED},
    "simcut without weight": {"simcut_alpha": 0.0},
    "scala": {"scala_radius": 0.0, **SHARED},
    "scala ce": {"scala_radius": 0.0, "scala_loss": "ce", **SHARED},
    "freelb": {"adv_steps": 1, "adv_eps": 0.0},
}
REPORTS = ["report_mcc", "report_acc_and_f1", "report_pearson_and_spearman"]


def plain_criterion(classes, **reports):
    cfg = SentencePredictionConfig(regression_target=classes == 1, **reports)
    return SentencePredictionCriterion(cfg, sentence_task(classes))


def criterion_of(name, classes, **options):
    return make_criterion(name, sentence_task(classes), regression_target=classes == 1, **options)


def micro_batches(classes):
    return [sentence_batch(classes=classes), sentence_batch((7, 2), classes, seed=2, first_id=4)]


def assert_plain(name, classes, update_num=0, **options):
    model, batches = sentence_model(classes, dropout=0.3), micro_batches(classes)
    ours = run_update(criterion_of(name, classes, **options), model, batches, update_num)
    state = torch.get_rng_state()
    assert same_bits(ours, run_update(plain_criterion(classes), model, batches, update_num))
    assert torch.equal(state, torch.get_rng_state())


def test_every_method_has_both_names():
    stems = {name[: -len("_sentence_prediction")] for name in METHODS}
    assert stems == {name[: -len("_label_smoothed")] for name in OURS if name.endswith("_label_smoothed")}
    assert len(stems) >= 11 and len(OURS) == 2 * len(stems)


@pytest.mark.parametrize("name", sorted(OURS))
def test_classes_are_found_in_another_process(name):
    """Fairseq pickles what it hands to the processes that it starts."""
    for cls in (CRITERION_DATACLASS_REGISTRY[name], OURS[name]):
        assert pickle.loads(pickle.dumps(cls)) is cls


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(
    ("update_num", "options"), [(0, {"adv_lambda": 0.0}), (2, {"adv_start_update": 3}), (4, {"adv_every": 3})]
)
def test_without_strength_or_before_the_start(name, classes, update_num, options):
    if not honoured(name, **options):  # FreeAT's replays come in a row
        options, update_num = {"adv_start_update": 5}, 4
    assert_plain(name, classes, update_num, **options)


@pytest.mark.parametrize("case", NO_RADIUS)
@pytest.mark.parametrize("classes", CLASSES)
def test_radius_zero_with_shared_masks(case, classes):
    assert_plain(f"{case.split()[0]}_sentence_prediction", classes, **NO_RADIUS[case])


def spectral_model():
    """Its head is divided by an estimated norm, which each pass refines (``--spectral-norm-classification-head``)."""
    return sentence_model(3, dropout=0.3, spectral_norm_classification_head=True)


def buffers_of(model):
    return torch.cat([buffer.flatten().float() for buffer in model.buffers()])


@pytest.mark.parametrize("case", NO_RADIUS)
def test_radius_zero_with_shared_masks_under_a_spectral_norm(case):
    ours, plain = spectral_model(), spectral_model()
    criterion = criterion_of(f"{case.split()[0]}_sentence_prediction", 3, **NO_RADIUS[case])
    update = run_update(criterion, ours, micro_batches(3))
    assert same_bits(update, run_update(plain_criterion(3), plain, micro_batches(3)))
    assert torch.equal(buffers_of(ours), buffers_of(plain))


MODES = [("conadv", {"conadv_mode": "shifted"}), ("smart", {"adv_passes": "recompute"})]


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in IN_ONE_UPDATE), *((f"{name}_sentence_prediction", options) for name, options in MODES)],
)
def test_a_spectral_norm_is_estimated_once_for_each_batch(name, options):
    ours, plain = spectral_model(), spectral_model()
    criterion = criterion_of(name, 3, **options)
    for update in range(2):
        criterion.train()
        run_update(criterion, ours, micro_batches(3), update)
        run_update(plain_criterion(3), plain, micro_batches(3))
        assert torch.equal(buffers_of(ours), buffers_of(plain)) and buffers_of(plain).numel() > 10


@pytest.mark.parametrize(("name", "nothing"), [("r3f", {"r3f_sigma": 0.0}), ("smart", {"adv_eps": 0.0})])
def test_a_part_of_the_rows_meets_the_spectral_norm_of_the_clean_pass(name, nothing):
    """Equal inputs, no dropout: what is left of a divergence is rounding, where another estimate would show."""
    model = sentence_model(3, spectral_norm_classification_head=True)
    criterion = criterion_of(f"{name}_sentence_prediction", 3, adv_fraction=0.5, **nothing)
    log = run_update(criterion, model, [sentence_batch((5, 3, 1, 7, 4, 2, 6, 3))]).log
    assert log["adv_regularised"] > 1 and abs(float(log["adv_loss"])) < 1e-6


@pytest.mark.parametrize("classes", CLASSES)
def test_disadv_without_radius_is_twice_half_the_plain_gradient(classes):
    model, batch = sentence_model(classes, dropout=0.3), [sentence_batch(classes=classes)]
    ours = run_update(criterion_of("disadv_sentence_prediction", classes, disadv_alpha=0.0, **SHARED), model, batch)
    assert same_bits(ours, run_update(plain_criterion(classes), model, batch))


@pytest.mark.parametrize("name", IN_ONE_UPDATE)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("update_num", "options"), [(3, {"adv_start_update": 3}), (6, {"adv_every": 3})])
def test_updates_from_the_start_on_are_regularised(name, classes, update_num, options):
    model, batches = sentence_model(classes, dropout=0.3), micro_batches(classes)
    ours = run_update(criterion_of(name, classes, **honoured(name, **options)), model, batches, update_num)
    assert not same_bits(ours, run_update(plain_criterion(classes), model, batches))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("report", [None, *REPORTS])
def test_evaluation_is_sentence_prediction(name, classes, report):
    model, batch = sentence_model(classes, dropout=0.3).eval(), sentence_batch(classes=classes)
    reports = {} if report is None else {report: True}
    loss, size, log = criterion_of(name, classes, **reports)(model, batch)
    expected, expected_size, expected_log = plain_criterion(classes, **reports)(model, batch)
    assert torch.equal(loss, expected) and size == expected_size
    assert {key: log.pop(key) for key in expected_log} == expected_log
    assert log == dict.fromkeys(LOG_KEYS, 0)


@pytest.mark.parametrize("report", [None, *REPORTS])
def test_ranks_add_up_their_logs_unless_they_hold_lists(report):
    reports = {} if report is None else {report: True}
    criterion = criterion_of("r3f_sentence_prediction", 3, **reports)
    assert criterion.logging_outputs_can_be_summed() == (report is None)
    assert make_criterion("r3f_label_smoothed").logging_outputs_can_be_summed()


@pytest.mark.parametrize("name", IN_ONE_UPDATE)
@pytest.mark.parametrize("classes", CLASSES)
def test_logs_of_dummy_plain_and_regularised_batches_line_up(name, classes):
    model, batch = sentence_model(classes), sentence_batch(classes=classes)
    criterion = criterion_of(name, classes, adv_start_update=1)
    logs = [run_update(criterion, model, [batch], update_num).log for update_num in (0, 1)]
    criterion.begin_micro_batch(1, dummy_batch=True)
    logs.append(criterion(model, batch)[2])
    kinds = [[(key, torch.is_tensor(value)) for key, value in log.items()] for log in logs]
    assert kinds[0] == kinds[1] == kinds[2]


@pytest.mark.parametrize("method", ["r3f", "rdrop", "simcut"])
@pytest.mark.parametrize("classes", CLASSES)
def test_one_pass_over_twice_the_rows_is_two_passes(method, classes):
    model, batch = sentence_model(classes).double(), sentence_batch(classes=classes)
    options = {"r3f": {"r3f_sigma": 0.3}, "rdrop": {}, "simcut": {"simcut_p": 0.4}}[method]
    apart, together = (
        run_update(criterion_of(f"{method}_sentence_prediction", classes, adv_passes=p, **options), model, [batch])
        for p in ("sequential", "concat")
    )
    assert together.loss.item() == pytest.approx(apart.loss.item(), rel=1e-9)
    for ours, other in zip(together.gradients, apart.gradients):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-7)


def test_a_model_without_that_head_is_refused():
    head = criterion_of("r3f_sentence_prediction", 3, classification_head_name="other").head
    with pytest.raises(ValueError, match="--classification-head-name other: RobertaModel has no head"):
        head.check_model(sentence_model())


@pytest.mark.parametrize("option", ["mha_reg_scale_factor", "ffn_reg_scale_factor"])
def test_losses_of_parameters_are_refused(option):
    head = criterion_of("r3f_sentence_prediction", 3).head
    head.check_model(sentence_model())
    options: Dict[str, Any] = {option: 0.1}
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')}"):
        head.check_model(sentence_model(**options))
