"""Which patches are hidden: exactly so many, drawn for the global batch, always the same in evaluation."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ecg_lightning.pretraining.masking import masked, num_visible, record_noise, step_noise, visible_of


@given(num_patches=st.integers(2, 200), ratio=st.floats(0.01, 0.99))
@example(num_patches=2, ratio=0.99)
@example(num_patches=2, ratio=0.01)
def test_the_masked_share_is_exact_and_never_all_nor_nothing(num_patches, ratio):
    visible = visible_of(torch.rand(4, num_patches), ratio)
    assert visible.shape == (4, num_visible(num_patches, ratio))
    assert 1 <= visible.shape[1] < num_patches
    exact = num_patches * (1 - ratio)
    assert abs(visible.shape[1] - exact) <= 0.5 or not 1 <= exact <= num_patches - 1
    assert (visible.diff(dim=1) > 0).all()
    hidden = masked(visible, num_patches)
    assert (hidden.sum(dim=1) == num_patches - visible.shape[1]).all()
    assert not hidden.gather(1, visible).any()


def test_the_patches_with_the_least_noise_stay_visible():
    noise = torch.tensor([[0.3, 0.1, 0.9, 0.2], [0.6, 0.8, 0.5, 0.7]])
    assert visible_of(noise, 0.5).tolist() == [[1, 3], [0, 2]]


def test_every_patch_is_masked_as_often_as_any_other():
    visible = visible_of(step_noise(20_000, slice(None), 8, seed=3), 0.75)
    share = masked(visible, 8).double().mean(dim=0)
    assert (share - 0.75).abs().max() < 4 * (0.75 * 0.25 / 20_000) ** 0.5


def test_two_processes_draw_the_masks_that_one_would():
    whole = step_noise(10, slice(0, 10), 5, seed=1)
    parts = [step_noise(10, slice(0, 6), 5, seed=1), step_noise(10, slice(6, 10), 5, seed=1)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(step_noise(10, slice(0, 10), 5, seed=2), whole)


def test_in_evaluation_a_record_has_its_mask_whatever_batch_it_is_in():
    together = record_noise(torch.tensor([7, 3, 9]), 6, seed=42)
    alone = record_noise(torch.tensor([3]), 6, seed=42)
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(record_noise(torch.tensor([3]), 6, seed=43), alone)
