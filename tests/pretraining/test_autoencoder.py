"""The masked autoencoder: a loss on hidden patches alone, in their own mean and deviation, that reaches all weights."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import NormNet, of_lightning, tiny_trainer, tiny_vit

from ecg_lightning.data.sampler import TrainingBatches
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder, normalised
from ecg_lightning.pretraining.decoder import grid_places
from ecg_lightning.pretraining.masking import record_noise, visible_of
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


class Stage:
    """What a training step asks of its trainer."""

    def __init__(self, world_size, rank):
        self.world_size, self.global_rank = world_size, rank


def step(module, batch, world_size=1, rank=0, epoch=3, batch_idx=2):
    stage = Stage(world_size, rank)  # the module holds a weak reference
    stage.current_epoch = epoch
    module.trainer, module.log = stage, lambda *_, **__: None
    return module.training_step(batch, batch_idx).item()


@pytest.mark.parametrize("cuts", [(0, 3, 4), (0, 1, 2, 4), (0, 4)])
def test_the_mean_over_uneven_processes_is_the_loss_of_the_global_batch(cuts):
    ecg, module, world_size = some_ecgs().double().unsqueeze(1), autoencoder().double(), len(cuts) - 1
    whole = step(module, {"ecg": ecg, "num_global": 4, "first": 0})
    parts = [
        step(module, {"ecg": ecg[first:end], "num_global": 4, "first": first}, world_size, rank)
        for rank, (first, end) in enumerate(pairwise(cuts))
    ]
    assert sum(parts) / world_size == pytest.approx(whole, rel=1e-12)


def test_a_process_without_a_record_of_a_short_batch_adds_nothing(tiny_store):
    data = UnlabelledECGs(str(tiny_store), batch_size=21).use_signal(tiny_vit().signal)  # 64 records: the last has one
    order = data.train_dataloader().batch_sampler.order
    batches = []
    for rank in range(2):
        *_, last = TrainingBatches(order, 21, seed=42, rank=rank, world_size=2)
        batch = data._datasets["train"].__getitems__(last)
        batches.append({**batch, "ecg": batch["ecg"].float()})
    module = autoencoder()
    assert step(module, batches[0], 2, 0) > 0
    assert step(module, batches[1], 2, 1) == 0


def test_masks_and_dropout_of_a_step_follow_from_seed_epoch_batch_and_dropout_from_the_rank_as_well():
    batch = {"ecg": some_ecgs().unsqueeze(1), "num_global": 4, "first": 0}
    plain = autoencoder()
    first = step(plain, batch)
    torch.rand(7)  # what was drawn before does not matter
    assert step(plain, batch) == first == step(plain, batch, rank=1)
    assert len({step(plain, batch, epoch=4), step(plain, batch, batch_idx=3), first}) == 3
    assert step(autoencoder(seed=1), batch) != first
    torch.manual_seed(1)
    dropping = MaskedAutoencoder(tiny_vit(dropout=0.3), **SMALL)
    first = step(dropping, batch)
    torch.rand(7)
    assert step(dropping, batch) == first != step(dropping, batch, rank=1)


def test_in_validation_all_windows_of_a_record_are_masked_alike_and_count():
    module, logged = autoencoder(seed=5).eval(), {}
    module.log = lambda name, value, **options: logged.update({name: (value, options["batch_size"])})
    ecg, index = some_ecgs(6).unflatten(0, (3, 2)), torch.tensor([4, 1, 9])
    with torch.no_grad():
        module.validation_step({"ecg": ecg, "index": index}, 0)
        noise = record_noise(index, 20, 5)
        by_hand = [module(ecg[:, window], noise).losses for window in range(2)]
    assert logged["val/loss"][1] == 3
    torch.testing.assert_close(logged["val/loss"][0], torch.stack(by_hand).mean())


def test_what_was_seen_lies_on_its_own_place_in_the_decoder():
    decoder = autoencoder().decoder.eval()
    tokens, visible = torch.randn(2, 3, 12), torch.tensor([[1, 5, 9], [0, 2, 19]])
    seen = []
    decoder.blocks = torch.nn.ModuleList([torch.nn.Identity()])
    decoder.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    decoder(tokens, visible)
    expected = decoder.mask_token.expand(2, 20, -1).clone()
    for row in range(2):
        expected[row, visible[row]] = decoder.embed(tokens[row])
    torch.testing.assert_close(seen[0], expected + decoder.places)


def test_the_first_half_of_a_place_is_its_row_in_sines_and_cosines():
    places = grid_places((2, 3), 8).double()
    angles = torch.tensor([1.0, 0.01], dtype=torch.float64)
    row, column = torch.cat([angles.sin(), angles.cos()]), torch.cat([(2 * angles).sin(), (2 * angles).cos()])
    torch.testing.assert_close(places[5], torch.cat([row, column]), rtol=0, atol=1e-6)


def test_targets_are_in_the_unbiased_deviation_of_the_published_code():
    values = torch.tensor([[1.0, 2.0, 6.0]])
    torch.testing.assert_close(normalised(values), torch.tensor([[-2.0, -1.0, 3.0]]) / 7**0.5)


def test_a_step_in_double_precision_is_not_rounded():
    module = autoencoder().double()
    assert module(some_ecgs().double(), torch.rand(4, 20)).losses.dtype == torch.float64


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
