"""The masked autoencoder: a loss on hidden patches alone, in their own mean and deviation, that reaches all weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import NormNet, of_lightning, tiny_trainer, tiny_vit

from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder, normalised
from ecg_lightning.pretraining.decoder import grid_places
from ecg_lightning.pretraining.masking import visible_of
from ecg_lightning.pretraining.schedule import MaskedPretraining

pytestmark = of_lightning
SMALL = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def autoencoder(**arguments):
    torch.manual_seed(1)
    return MaskedAutoencoder(tiny_vit(), **{**SMALL, **arguments})


def some_ecgs(count=4):
    return torch.randn(count, 12, 1000, generator=torch.Generator().manual_seed(5))


def test_the_loss_is_the_mean_square_over_hidden_patches_alone():
    module, ecg, noise = autoencoder().eval(), some_ecgs(), torch.rand(4, 20)
    found = module(ecg, noise)
    target = normalised(module.backbone.patch_values(ecg))
    for row in range(4):
        hidden = [place for place in range(20) if place not in visible_of(noise, 0.75)[row].tolist()]
        assert len(hidden) == 15
        by_hand = ((found.predicted[row, hidden] - target[row, hidden]) ** 2).mean()
        torch.testing.assert_close(found.losses[row], by_hand)


def test_what_is_predicted_for_visible_patches_does_not_matter():
    module, ecg, noise = autoencoder(), some_ecgs(), torch.rand(4, 20)
    with torch.no_grad():
        first = module(ecg, noise)
    predicted = first.predicted.clone().requires_grad_()
    module.decoder.forward = lambda tokens, visible: predicted
    module(ecg, noise).losses.sum().backward()
    touched = predicted.grad.abs().sum(dim=2) > 0
    assert not touched.gather(1, first.visible).any()
    assert int(touched.sum()) == 4 * 15


@given(scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_targets_do_not_depend_on_a_patchs_own_mean_and_scale(scale, shift):
    values = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(normalised(values * scale + shift), normalised(values), rtol=0, atol=1e-3)


def test_a_flat_patch_becomes_zero_and_not_nan():
    assert torch.equal(normalised(torch.full((1, 1, 50), 3.0)), torch.zeros(1, 1, 50))


def test_a_step_reaches_every_weight_of_encoder_and_decoder():
    module = autoencoder()
    module(some_ecgs(), torch.rand(4, 20)).losses.mean().backward()
    without = [
        name for name, parameter in module.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # The key bias of attention cancels in the softmax: its exact gradient is 0, as a part of qkv.bias.
    assert without == []


def test_places_of_the_decoder_differ_in_row_and_column():
    places = grid_places((3, 4), 16)
    assert places.shape == (12, 16)
    assert (torch.cdist(places, places) + torch.eye(12) > 0.1).all()
    assert torch.equal(places[0, :8], places[3, :8])  # one row
    assert torch.equal(places[1, 8:], places[5, 8:])  # one column


def test_a_short_training_learns_to_fill_in_what_it_is_trained_on(tiny_store, tmp_path):
    module = autoencoder(mask_ratio=0.5)
    data = UnlabelledECGs(str(tiny_store), batch_size=16)
    trainer = tiny_trainer(
        tmp_path, MaskedPretraining(15, 1e-2, probe_every=0), max_epochs=15, limit_val_batches=1, log_every_n_steps=1
    )
    before = validated(module, data)
    trainer.fit(module, data)
    assert validated(module, data) < 0.95 * before


@torch.no_grad()
def validated(module, data):
    data.use_signal(module.backbone.signal)
    batch = next(iter(data.val_dataloader()))
    ecg = data.on_after_batch_transfer(batch, 0)["ecg"].flatten(0, 1)
    return float(module(ecg, torch.rand(8, 20, generator=torch.Generator().manual_seed(0))).losses.mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_ratio": 1.0}, "model.mask_ratio is 1.0, it must lie between 0 and 1"),
        ({"decoder_dim": 15}, "decoder_dim is 15, no multiple of decoder_heads, 2"),
        ({"decoder_depth": 0}, "decoder_depth is 0, it must be 1 or more"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        autoencoder(**arguments)


def test_a_network_without_patches_is_refused_with_those_that_have_them():
    with pytest.raises(
        UsageError, match=r"no grid of patches to mask: choose vit, mtecg_ti, st_mem_base or st_mem_small"
    ):
        MaskedAutoencoder(NormNet())
    with pytest.raises(UsageError, match=r"cuts an ECG into one patch: make model\.backbone\.patch smaller"):
        MaskedAutoencoder(tiny_vit(patch=(12, 1000)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "pretraining.epochs is 0: nothing to train"),
        ({"learning_rate": -1.0}, "pretraining.learning_rate is -1.0, it must not be negative"),
        ({"epochs": 3, "warmup_epochs": 4}, "pretraining.warmup_epochs is 4, it must not be above 3"),
        ({"min_learning_rate": 1.0}, "pretraining.min_learning_rate is 1.0, it must not be above 0.001"),
    ],
)
def test_schedules_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        MaskedPretraining(**arguments)
