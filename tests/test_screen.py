import logging
from dataclasses import replace

import pytest
from tiny import norm_net

from ecg_lightning.backbones import STMEM, Backbone, backbone_card, base
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.screen import warn_of_pretraining


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
