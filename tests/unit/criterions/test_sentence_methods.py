"""Every method on sentences: loss and gradient of one update against an independent implementation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fairseq_adv.data.served_batch import ServedBatch, ServedSide
from fairseq_adv.perturb.rng import reseed_from_state
from tests.unit.criterions import reference as ref
from tests.unit.criterions import sentence_reference as sent
from tests.unit.criterions.updates import assert_matches, make_criterion, noise_in_columns, run_update
from tests.unit.sentence_models import DIM, sentence_batch, sentence_model, sentence_task

TASKS = {"classes": 3, "regression": 1}
EPSILON, ETA, LAMBDA = 0.5, 0.2, 0.7


def setting(classes, dropout=0.0):
    return sentence_model(classes, dropout=dropout).double(), sentence_batch(classes=classes)


def criterion_of(method, classes, **options):
    task = sentence_task(classes)
    return make_criterion(f"{method}_sentence_prediction", task, regression_target=classes == 1, **options)


def sentence_method(name, batch, classes, **options):
    """With a strength that shows, and for ARCH a cache in which every row of *batch* is found."""
    strength = {} if name in ("conadv", "disadv", "freeat", "freelb") else {"adv_lambda": LAMBDA}
    criterion = criterion_of(name, classes, **{**strength, **options})
    if name == "arch":
        criterion.perturbations, criterion.started = SimpleNamespace(serve=serving(batch)), True
    return criterion


def cached_words(batch):
    """What the cache holds for ARCH in these tests: ``B x L x D``; rows are right-padded, so columns are places."""
    return 0.2 * noise_in_columns("normal", batch, ("src",), dim=DIM)["src"]


def serving(batch):
    def serve(known):
        none = torch.zeros(len(known.ids), 1)
        means = none.unsqueeze(-1).expand(-1, 1, DIM)
        side = ServedSide(none[:, 0] == 0, cached_words(batch).float()[known.ids], means, none, none > 0)
        return ServedBatch({"src": side}, cached=len(known.ids))

    return serve


def start(batch, distribution="uniform"):
    noise = noise_in_columns(distribution, batch, ("src",), dim=DIM)
    return ref.each_sentence(noise, batch, lambda words: ref.of_norm(words, EPSILON))


def worst_case(model, batch, divergence, steps):
    clean, delta = sent.output(model, batch, {}).detach(), start(batch)
    for _ in range(steps):
        gradient = ref.gradient_at(delta, lambda d: divergence(clean, sent.output(model, batch, d)))
        delta = ref.step(delta, gradient, batch, ETA, EPSILON)
    return delta


def expected_smart(model, batch):
    delta = worst_case(model, batch, sent.symmetric, 3)
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    return sent.task_loss(p, batch) + LAMBDA * sent.symmetric(p, q)


def expected_r3f(model, batch):
    delta = {"src": 0.3 * noise_in_columns("normal", batch, ("src",), dim=DIM)["src"]}
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    penalty = sent.kl(p, q) + sent.kl(q, p) if p.size(1) > 1 else sent.kl(p, q)
    return sent.task_loss(p, batch) + LAMBDA * penalty


def expected_vat(model, batch):
    noise = noise_in_columns("normal", batch, ("src",), dim=DIM)
    unit = ref.each_sentence(noise, batch, lambda words: ref.of_norm(words, 1.0))
    p = sent.output(model, batch, {})
    gradient = ref.gradient_at(unit, lambda d: sent.kl(p.detach(), sent.output(model, batch, d)))
    delta = ref.each_sentence(gradient, batch, lambda words: ref.of_norm(words, 0.6))
    return sent.task_loss(p, batch) + LAMBDA * sent.kl(p, sent.output(model, batch, delta))


def expected_scala(model, batch):
    noise = {"src": 0.05 * noise_in_columns("normal", batch, ("src",), dim=DIM)["src"]}
    p = sent.output(model, batch, {})
    gradient = ref.gradient_at(noise, lambda d: sent.kl(p.detach(), sent.output(model, batch, d)))
    delta = ref.step(noise, gradient, batch, ETA, EPSILON)
    return sent.task_loss(p, batch) + LAMBDA * sent.kl(p, sent.output(model, batch, delta))


def task_gradient(model, batch):
    zero = sent.zeros(model, batch)
    return ref.gradient_at(zero, lambda d: sent.task_loss(sent.output(model, batch, d), batch))


def expected_disadv(model, batch):
    delta = ref.each_sentence(task_gradient(model, batch), batch, lambda words: ref.of_norm(words, EPSILON))
    outputs = sent.output(model, batch, {}), sent.output(model, batch, delta)
    return 0.5 * sum(sent.task_loss(o, batch) for o in outputs)


def expected_freelb(model, batch):
    delta, total = start(batch), torch.zeros(())
    for _ in range(3):
        total = total + sent.task_loss(sent.output(model, batch, delta), batch) / 3
        gradient = ref.gradient_at(delta, lambda d: sent.task_loss(sent.output(model, batch, d), batch))
        delta = ref.step(delta, gradient, batch, ETA, EPSILON)
    return total


def expected_freeat(model, batch):
    return sent.task_loss(sent.output(model, batch, start(batch)), batch)


def expected_simcut(model, batch):
    noise = noise_in_columns("uniform", batch, ("src",), dim=1)["src"]
    kept = ((noise + 1) / 2 >= 0.4).double()  # padding, where the noise is 0, stays what it is
    p, q = sent.output(model, batch, {}), sent.scores_of(model, batch, sent.word_embeddings(model, batch) * kept)
    return sent.task_loss(p, batch) + 1.5 * LAMBDA * sent.kl(p, q)


BALL = {"adv_eps": EPSILON, "adv_step_size": ETA}
WEIGHT = {"adv_lambda": LAMBDA}
METHODS = {
    "smart": (expected_smart, {**BALL, **WEIGHT}),
    "r3f": (expected_r3f, {"r3f_sigma": 0.3, **WEIGHT}),
    "vat": (expected_vat, {"vat_eps": 0.6, **WEIGHT}),
    "scala": (expected_scala, {"scala_sigma": 0.05, "scala_radius": EPSILON, "scala_step_size": ETA, **WEIGHT}),
    "disadv": (expected_disadv, {"disadv_alpha": EPSILON}),
    "conadv": (expected_disadv, {"conadv_alpha": EPSILON}),  # nothing was computed ahead of the first update
    "freelb": (expected_freelb, BALL),
    "freeat": (expected_freeat, BALL),
    "simcut": (expected_simcut, {"simcut_p": 0.4, "simcut_alpha": 1.5, **WEIGHT}),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_of_one_update(method, task):
    model, batch = setting(TASKS[task])
    expected, options = METHODS[method]
    update = run_update(criterion_of(method, TASKS[task], **options), model, [batch])
    plain = sent.task_loss(sent.output(model, batch, {}), batch)
    wanted = expected(model, batch)
    assert abs(wanted.item() - plain.item()) > 1e-2  # the method is a visible part
    assert_matches(update, model, wanted)


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_add_up(task):
    model, batch = setting(TASKS[task])
    batches = [batch, sentence_batch((2, 6), TASKS[task], seed=4, first_id=4)]
    update = run_update(criterion_of("smart", TASKS[task], **METHODS["smart"][1]), model, batches)
    assert_matches(update, model, sum(expected_smart(model, b) for b in batches))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("detach", [False, True])
def test_rdrop_compares_two_dropout_passes(task, detach):
    model, batch = setting(TASKS[task], dropout=0.3)
    update = run_update(criterion_of("rdrop", TASKS[task], rdrop_alpha=2.0, adv_detach_clean=detach), model, [batch])
    torch.manual_seed(5)
    p = sent.output(model, batch, {})
    reseed_from_state(torch.device("cpu"))
    q = sent.output(model, batch, {})
    divergence = sent.symmetric(p.detach() if detach else p, q)
    assert divergence > 1e-2
    assert_matches(update, model, sent.task_loss(p, batch) + sent.task_loss(q, batch) + 2.0 * divergence)


@pytest.mark.parametrize("task", TASKS)
def test_arch_trains_on_what_the_cache_serves(task):
    model, batch = setting(TASKS[task])
    update = run_update(sentence_method("arch", batch, TASKS[task], adv_eps=9.0), model, [batch])
    p, q = sent.output(model, batch, {}), sent.output(model, batch, {"src": cached_words(batch)})
    assert_matches(update, model, sent.task_loss(p, batch) + LAMBDA * sent.kl(p, q))
    assert update.log["adv_cached"] == 4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("steps", [1, 2])
def test_standard_gradient_ascent_from_an_unscaled_start_in_word_level_balls(steps, task):
    """ARCH's appendix B.2, with a step that does something: δ ← clip(δ + η g) from N(0, σ²), no norm divided out."""
    model, batch = setting(TASKS[task])
    options = {"adv_init": "normal", "adv_init_sigma": 0.05, "adv_gradient": "raw", "adv_norm": "linf"}
    ball = {"adv_level": "word", "adv_eps": 0.08, "adv_steps": steps, "adv_step_size": 0.02}
    update = run_update(criterion_of("smart", TASKS[task], **options, **ball, **WEIGHT), model, [batch])
    noise = noise_in_columns("normal", batch, ("src",), dim=DIM)
    clean = sent.output(model, batch, {}).detach()
    delta = ref.each_sentence(noise, batch, lambda words: (0.05 * words).clamp(-0.08, 0.08))
    for _ in range(steps):
        gradient = ref.gradient_at(delta, lambda d: sent.symmetric(clean, sent.output(model, batch, d)))
        delta = ref.each_sentence(delta, batch, lambda d, g: (d + 0.02 * g).clamp(-0.08, 0.08), gradient)
    p, q = sent.output(model, batch, {}), sent.output(model, batch, delta)
    assert_matches(update, model, sent.task_loss(p, batch) + LAMBDA * sent.symmetric(p, q))


def test_preset_is_the_papers_setting_where_an_option_is_left_alone():
    preset = {"adv_preset": "arch-b2", "adv_steps": 2}
    written = {
        "adv_eps": 1.0, "adv_norm": "linf", "adv_level": "word", "adv_init": "normal", "adv_init_sigma": 1e-5,
        "adv_gradient": "raw", "adv_steps": 2, "adv_step_size": 1e-4,
    }  # fmt: skip
    model, batch = setting(3)
    by_name, by_hand = (run_update(criterion_of("smart", 3, **o), model, [batch]) for o in (preset, written))
    assert by_name.loss == by_hand.loss and by_name.log["adv_norm_src"] == by_hand.log["adv_norm_src"]
    assert 0 < by_name.log["adv_loss"] < 1e-4  # read literally it changes next to nothing
    assert criterion_of("arch", 3, adv_preset="arch-b2").cfg.cache_interval == float("inf")


@pytest.mark.parametrize("task", TASKS)
def test_noise_of_sigma_100_changes_the_output(task):
    model, batch = setting(TASKS[task])
    update = run_update(criterion_of("r3f", TASKS[task], r3f_sigma=100.0), model, [batch])
    assert update.log["adv_loss"] > 1.0


@pytest.mark.parametrize("method", ["freelb", "freeat"])
def test_a_raw_gradient_of_the_training_loss_is_refused(method):
    with pytest.raises(ValueError, match="--adv-gradient must be normalised"):
        criterion_of(method, 3, adv_gradient="raw")


def test_a_target_side_is_refused():
    with pytest.raises(ValueError, match=r"--adv-sides tgt: .*sentence_prediction has no such side"):
        criterion_of("r3f", 3, adv_sides="tgt")
