import numpy as np
import pytest
import torch

from ecg_lightning.backbones import Inception1d, XResNet1d101, backbone_card, backbone_signal, ptbxl_benchmark
from ecg_lightning.chains import Standardise, run_batch_chain, run_record_chain
from ecg_lightning.signals import LEADS_12
from ecg_lightning.stochastic_depth import set_drop_path

both_networks = pytest.mark.parametrize("name", ["inception1d", "xresnet1d101"])
TINY = {
    "inception1d": lambda: Inception1d(bottleneck=2, filters=2, kernels=(5, 3)),
    "xresnet1d101": lambda: XResNet1d101(stem=(2, 2, 4), blocks=(1, 1, 1, 1), width=2),
}


@both_networks
@pytest.mark.parametrize("ecg_id", [1, 2, 3])
def test_preprocessing_equals_the_published_functions_on_real_records(name, ecg_id, shared):
    spec = backbone_signal(name)
    path = shared / "ptbxl" / "records100" / "00000" / f"{ecg_id:05d}_lr.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    stored = run_record_chain(spec.stored_chain, millivolts, spec.record_rate).astype(np.float32)
    starts = spec.windows.evaluation_starts(stored.shape[-1], spec.num_time_points)
    windows = torch.from_numpy(np.stack([stored[:, start : start + 250] for start in starts]))
    with np.load(shared / "preprocessing" / "xresnet1d101.npz") as published:
        record = torch.from_numpy(published[f"ecg_{ecg_id}"]).T  # (lead, time), not yet cut
    expected = torch.stack([record[:, start : start + 250] for start in starts])
    torch.testing.assert_close(run_batch_chain(spec.batch_chain, windows), expected, atol=1e-5, rtol=0)


@both_networks
def test_seven_windows_of_a_record_half_over_each_other_give_the_largest_probability(name):
    spec = backbone_signal(name)
    assert spec.windows.evaluation_starts(1000, spec.num_time_points) == [0, 125, 250, 375, 500, 625, 750]
    assert (spec.windows.train, spec.windows.aggregate) == ("random", "max")


def test_windows_of_another_length_lie_half_over_each_other_as_well():
    assert ptbxl_benchmark.benchmark_signal(500).windows.evaluation_starts(1000, 500) == [0, 250, 500]
    assert ptbxl_benchmark.benchmark_signal(1).windows.stride == 1


@both_networks
def test_a_store_of_untouched_records_at_100_hz_serves_both(name):
    spec = backbone_signal(name)
    assert (spec.record_rate, spec.sampling_rate, spec.leads, spec.stored_chain) == (100, 100, LEADS_12, ())
    assert spec.batch_chain == (Standardise(-0.00077717, 0.23895642),)


@both_networks
def test_the_card_warns_that_the_weights_have_seen_the_labels_of_ptbxl(name):
    card = backbone_card(name)
    assert card.ptbxl_in_pretraining
    assert "fold 10" in card.pretraining_data
    (figures,) = card.published
    assert [*figures.values] == ["all", "diagnostic", "subclass", "superclass", "form", "rhythm"]


@both_networks
def test_subset_mode_with_no_record_kept_leaves_the_norms_of_the_branch_as_they_were(name):
    """Its norms then see an empty batch."""
    backbone = TINY[name]().train()
    set_drop_path(backbone, 1.0, "uniform", "subset")
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    assert torch.isfinite(backbone(torch.randn(3, 12, 250))).all()
    branches = {key for key in before if ("convs" in key or "inceptions" in key) and "running" in key}
    assert branches
    assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers() if key in branches)
