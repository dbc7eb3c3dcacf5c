import pytest

from ecg_lightning.errors import UsageError
from ecg_lightning.optim import HEAD
from ecg_lightning.phases import FineTune, Probe, check_phases, frozen_layers, layer_rates


def test_the_probe_trains_the_head_alone():
    rates = layer_rates(Probe(epochs=2, learning_rate=0.1), step=3, steps_per_epoch=5, num_layers=3)
    assert rates == {HEAD: 0.1, 0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}


def test_fine_tuning_decays_rates_towards_the_input():
    plan = FineTune(epochs=2, learning_rate=0.8, schedule="constant", layer_decay=0.5)
    assert layer_rates(plan, 3, 5, num_layers=2) == pytest.approx({HEAD: 0.8, 2: 0.8, 1: 0.4, 0: 0.2})


def test_frozen_layers_have_rate_0_in_fine_tuning():
    plan = FineTune(learning_rate=0.8, schedule="constant", freeze_layers=2)
    assert layer_rates(plan, 0, 5, num_layers=3) == {HEAD: 0.8, 0: 0.0, 1: 0.0, 2: 0.8, 3: 0.8}


def test_the_cosine_spans_the_phase_to_its_last_step():
    plan = FineTune(epochs=3, learning_rate=0.8, min_learning_rate=0.1, schedule="cosine")
    head = [layer_rates(plan, step, 4, num_layers=1)[HEAD] for step in range(12)]
    assert head[0] == 0.8
    assert head[-1] == pytest.approx(0.1)
    assert head == sorted(head, reverse=True)


def test_warm_up_is_counted_in_epochs_and_may_be_a_fraction():
    plan = Probe(epochs=2, learning_rate=1.0, warmup_epochs=0.5)
    assert [layer_rates(plan, step, 6, 0)[HEAD] for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_the_probe_freezes_every_layer_and_fine_tuning_as_many_as_it_says():
    assert frozen_layers(Probe(), 7) == 8
    assert frozen_layers(FineTune(), 7) == 0
    assert frozen_layers(FineTune(freeze_layers=3), 7) == 3


def test_all_problems_are_told_in_one_message_by_flag():
    probe = Probe(epochs=0, learning_rate=-1)
    fine_tune = FineTune(epochs=0, weight_decay=-0.5, layer_decay=1.5, freeze_layers=-1)
    with pytest.raises(UsageError) as raised:
        check_phases(probe, fine_tune, drop_path_rate=1.0)
    message = str(raised.value)
    for part in (
        "post_training.probe.learning_rate is -1, it must not be negative",
        "post_training.fine_tune.weight_decay is -0.5",
        "post_training.fine_tune.freeze_layers is -1",
        "post_training.probe.epochs and post_training.fine_tune.epochs are both 0: nothing to train",
        "post_training.fine_tune.layer_decay is 1.5, it must lie in 0..1, 0 left out",
        "post_training.drop_path_rate is 1.0, it must lie in 0..1, 1 left out",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("probe", "fine_tune", "flag"),
    [
        (Probe(epochs=-1), FineTune(), "probe.epochs"),
        (Probe(warmup_epochs=-0.5), FineTune(), "probe.warmup_epochs"),
        (Probe(), FineTune(min_learning_rate=-1e-9), "fine_tune.min_learning_rate"),
        (Probe(), FineTune(layer_decay=0.0), "fine_tune.layer_decay"),
        (Probe(), FineTune(learning_rate=float("nan")), "fine_tune.learning_rate"),
        (Probe(), FineTune(learning_rate=1e-4, min_learning_rate=1e-3), "fine_tune.min_learning_rate"),
        (Probe(epochs=2, warmup_epochs=3), FineTune(), "probe.warmup_epochs"),
    ],
)
def test_each_number_that_cannot_be_meant_is_refused_by_its_flag(probe, fine_tune, flag):
    with pytest.raises(UsageError, match=rf"post_training\.{flag} is"):
        check_phases(probe, fine_tune, 0.1)


@pytest.mark.parametrize(
    ("probe", "fine_tune"), [(Probe(), FineTune()), (Probe(epochs=0), FineTune()), (Probe(), FineTune(epochs=0))]
)
def test_both_phases_or_one_of_them_are_accepted(probe, fine_tune):
    check_phases(probe, fine_tune, 0.0)
    check_phases(probe, fine_tune, 0.99)
