import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import NormNet, norm_net, plan, tiny_vit

from ecg_lightning.backbones import STMEM, Backbone, backbone_card, base
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.screen import log_to_file, stop_logging, warn_of_empty_statistics, warn_of_pretraining


def warned(caplog: pytest.LogCaptureFixture, backbone: Backbone, weights: str | None) -> str:
    with caplog.at_level(logging.WARNING, "ecg_lightning"):
        warn_of_pretraining(ECGClassifier(backbone, ("NORM",), weights=weights))
    return caplog.text


def tiny_st_mem() -> STMEM:
    return STMEM(depth=1, dim=8, heads=2, num_time_points=150)


@pytest.fixture
def seen(monkeypatch, request):
    """Makes st_mem_base's card say whether PTB-XL was in the pre-training."""
    card = replace(backbone_card("st_mem_base"), ptbxl_in_pretraining=request.param)
    monkeypatch.setitem(base._CARDS, "st_mem_base", card)


@pytest.mark.parametrize("seen", [True], indirect=True)
def test_weights_that_have_seen_ptbxl_are_warned_of_with_what_they_were_trained_on(seen, caplog):
    text = warned(caplog, tiny_st_mem(), "encoder.pth")
    assert "PTB-XL was in the pre-training of the published st_mem_base" in text
    assert "pre-trained on: Chapman, Ningbo and CODE-15" in text


@pytest.mark.parametrize("seen", [None], indirect=True)
def test_weights_that_may_have_seen_it_are_warned_of_as_unknown(seen, caplog):
    assert "PTB-XL may have been (its card says unknown) in" in warned(caplog, tiny_st_mem(), "encoder.pth")


@pytest.mark.parametrize("seen", [False], indirect=True)
def test_weights_that_have_not_seen_it_need_no_warning(seen, caplog):
    assert warned(caplog, tiny_st_mem(), "encoder.pth") == ""


@pytest.mark.parametrize("seen", [True], indirect=True)
def test_a_random_start_and_a_network_without_a_card_need_no_warning(seen, caplog):
    assert warned(caplog, tiny_st_mem(), None) == ""
    assert warned(caplog, norm_net(), "own.pth") == ""


# --- batch norms that a probe would read through ---


def warned_of_statistics(caplog: pytest.LogCaptureFixture, backbone: Backbone, *, probe: int = 1) -> str:
    with caplog.at_level(logging.WARNING, "ecg_lightning"):
        warn_of_empty_statistics(plan(probe, 1), ECGClassifier(backbone, ("NORM",)))
    return caplog.text


def with_statistics() -> NormNet:
    backbone = norm_net().train()
    backbone(torch.randn(4, 12, 1000))
    return backbone


def test_a_probe_of_batch_norms_without_statistics_is_warned_of_with_the_way_out(caplog):
    text = warned_of_statistics(caplog, norm_net())
    assert "2 batch norms, the first norms.0, have no statistics yet" in text
    assert "--model.weights FILE" in text
    assert "recipe/plain_fine_tuning" in text


@pytest.mark.parametrize(
    ("backbone", "probe"),
    [(norm_net, 0), (with_statistics, 1), (tiny_vit, 1)],
    ids=["no probe", "statistics at hand", "no batch norm"],
)
def test_a_probe_that_means_something_needs_no_warning(backbone, probe, caplog):
    assert warned_of_statistics(caplog, backbone(), probe=probe) == ""


def test_a_log_on_a_full_disk_says_nothing_on_the_screen(capsys):
    """The run itself says what ended it."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    handler = log_to_file(full)
    logging.getLogger("ecg_lightning").warning("lost")
    stop_logging(handler)
    assert "Logging error" not in capsys.readouterr().err


def test_a_log_still_says_what_is_wrong_with_its_messages(capsys, tmp_path):
    handler = log_to_file(tmp_path / "log.txt")
    handler.handle(logging.LogRecord("ecg_lightning", logging.WARNING, __file__, 0, "%d records", ("many",), None))
    stop_logging(handler)
    assert "Logging error" in capsys.readouterr().err
