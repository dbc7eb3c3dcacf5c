from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import expm

from ecg_lightning.backbones import Chimera, backbone_card
from ecg_lightning.backbones.chimera import SelectiveSSM2d
from ecg_lightning.backbones.scan2d import double_loop
from ecg_lightning.chains import Crop, Standardise
from ecg_lightning.errors import InputError

SMALL = {"depth": 2, "dim": 16, "channels": 8, "state": 2, "num_time_points": 160}
structures = pytest.mark.parametrize("structure", ["diagonal", "companion"])


def head(structure="diagonal", channels=3, state=4, seed=0):
    torch.manual_seed(seed)
    return SelectiveSSM2d(channels, state, (0.1, 1.0), structure).double()


def small(**others):
    torch.manual_seed(0)
    return Chimera(**SMALL | others)


def ecg(records=2, leads=12):
    return torch.randn(records, leads, 160, generator=torch.Generator().manual_seed(1))


@structures
def test_a_head_equals_the_equations_run_by_the_double_loop_in_both_directions(structure):
    ssm, x = head(structure), torch.randn(2, 4, 9, 3, dtype=torch.float64)
    b1, b2, c1, c2 = ssm.to_matrices(x).unsqueeze(-1).chunk(4, dim=-2)
    expected = ssm.skip * x
    for reverse in (False, True):
        h1, h2 = double_loop(ssm.cells(x, b1, b2), reverse=reverse)
        expected = expected + (c1 * h1).sum(-2) + (c2 * h2).sum(-2)
    torch.testing.assert_close(ssm(x), expected, atol=1e-12, rtol=0)


def test_coefficients_are_the_exact_zero_order_hold_of_the_continuous_equations():
    """Of d[h, other, x] = [[A, A_other, B], 0, 0], by a matrix exponential over one step, axis by axis."""
    ssm, x = head(channels=1, state=1), torch.randn(1, 1, 1, 1, dtype=torch.float64)
    b1, b2, *_ = ssm.to_matrices(x).unsqueeze(-1).chunk(4, dim=-2)
    cells = ssm.cells(x, b1, b2)
    steps = F.softplus(ssm.to_steps(x)).flatten()
    axes = {0: (cells.a1, cells.a2, cells.u1, b1), 1: (cells.a4, cells.a3, cells.u2, b2)}
    for axis, (own, other, drive, b) in axes.items():
        rate, coupling = ssm.log_rates[axis].exp().item(), ssm.couplings[axis].tanh().item()
        continuous = torch.zeros(3, 3, dtype=torch.float64)
        continuous[0] = torch.tensor([-rate, rate * coupling, rate * b.item()], dtype=torch.float64)
        held = torch.from_numpy(expm((steps[axis] * continuous).detach().numpy()))[0]
        expected = torch.stack([own.flatten()[0], other.flatten()[0], drive.flatten()[0] / x.item()])
        torch.testing.assert_close(expected, held, atol=1e-12, rtol=0)


def test_steps_and_matrices_depend_on_the_input():
    ssm, x = head(), torch.randn(1, 2, 2, 3, dtype=torch.float64)
    b = torch.ones(1, 2, 2, 4, 1, dtype=torch.float64)
    assert not torch.allclose(ssm.cells(x, b, b).a1[:, 0, 0], ssm.cells(x, b, b).a1[:, 1, 1])
    assert not torch.allclose(ssm.cells(x, b, b).a4[:, 0, 0], ssm.cells(x, b, b).a4[:, 1, 1])
    assert not torch.allclose(ssm(2 * x), 2 * ssm(x))


def test_the_long_term_head_starts_from_smaller_steps_over_time_than_the_seasonal_one():
    block = small(channels=64).blocks[0]
    long_term, seasonal = (F.softplus(ssm.to_steps.bias[:32]) for ssm in (block.long_term, block.seasonal))
    assert long_term.min().item() == pytest.approx(0.01, rel=1e-3)
    assert long_term.max() <= seasonal.min() + 1e-6
    assert seasonal.max().item() == pytest.approx(1.0, rel=1e-3)


@structures
def test_a_head_is_equivariant_to_the_reversal_of_the_leads(structure):
    ssm, x = head(structure), torch.randn(2, 5, 12, 3, dtype=torch.float64)
    torch.testing.assert_close(ssm(x.flip(1)), ssm(x).flip(1), atol=1e-12, rtol=0)


def test_every_lead_reaches_every_other():
    ssm, x = head(), torch.randn(1, 4, 6, 3, dtype=torch.float64)
    for lead in range(4):
        changed = x.clone()
        changed[:, lead] += 1
        assert ((ssm(changed) - ssm(x))[0, :, -1].abs().amax(-1) > 1e-9).all()


@structures
@pytest.mark.parametrize("step", [1e-6, 1.0, 1e4])
def test_states_stay_bounded_over_thousands_of_points_whatever_the_steps(structure, step):
    """No state exceeds what drives it, summed over the leads so far (and, for companions, over the states)."""
    ssm = head(structure, channels=2, state=2).float()
    with torch.no_grad():
        ssm.to_steps.weight.zero_()
        ssm.to_steps.bias.fill_(step if step > 20 else torch.tensor(step).expm1().log().item())
        ssm.couplings.fill_(20.0)  # tanh = 1: the strongest
    x = torch.ones(1, 3, 5000 if structure == "diagonal" else 1000, 2, requires_grad=True)
    y = ssm(x)
    drive = ssm.to_matrices.weight.abs().sum()
    assert y.abs().max() <= 1 + 2 * 2 * 3 * 4 * drive * drive * (1 if structure == "diagonal" else 2)
    y.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in ssm.parameters())
    assert torch.isfinite(x.grad).all()


def test_the_recurrence_runs_in_float32_under_bf16_autocast():
    ssm, x = head().float(), torch.randn(1, 3, 20, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssm(x), ssm(x.clone()))
        under_autocast, of_half = ssm(x), ssm(x.bfloat16())
    assert torch.equal(under_autocast, ssm(x))
    assert of_half.dtype is torch.float32


def test_the_network_trains_under_bf16_autocast():
    backbone = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(ecg())
    features.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())
    with torch.no_grad():
        torch.testing.assert_close(features.float(), backbone(ecg()), atol=0.05, rtol=0.05)


@structures
def test_tokens_see_no_later_time_of_any_lead(structure):
    backbone, changed = small(seasonal=structure).eval(), ecg()
    changed[:, :, 80:] += 1
    with torch.no_grad():
        before, after = (backbone.tokens(x).view(2, 12, 20, 16) for x in (ecg(), changed))
    torch.testing.assert_close(before[:, :, :10], after[:, :, :10], atol=1e-6, rtol=0)
    assert ((before - after)[:, :, 10:].abs().amax(-1) > 1e-4).all()


@structures
def test_gradients_with_states_computed_again_equal_those_with_states_kept(structure):
    backbone = small(seasonal=structure)
    gradients = []
    for training in (True, False):  # states are computed again in training alone; nothing else differs here
        backbone.train(training).zero_grad()
        backbone(ecg()).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in backbone.parameters()])
    for again, kept in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept, atol=1e-7, rtol=1e-5)


def test_training_keeps_no_states_between_forward_and_backward():
    backbone, kept = small(state=16).train(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        backbone(ecg())
    tokens = 2 * 12 * 20
    assert max(kept) <= tokens * 2 * SMALL["dim"]  # one state of one head: tokens * 16 * 4


@pytest.mark.usefixtures("traced_anew")
def test_a_companion_head_compiles_without_graph_breaks():
    ssm, x = head("companion", state=2).eval(), torch.randn(2, 2, 5, 3, dtype=torch.float64)
    compiled = torch.compile(ssm, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), ssm(x))


@pytest.fixture
def traced_anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_leads_are_told_apart():
    backbone = small().eval()
    with torch.no_grad():
        assert not torch.allclose(backbone(ecg()), backbone(ecg().flip(1)), atol=1e-5)


def test_signal_is_100_hz_with_one_mean_and_deviation_for_all_leads():
    signal = Chimera().signal
    assert (signal.record_rate, signal.num_time_points, len(signal.leads)) == (100, 1000, 12)
    assert signal.chain == (Crop(), Standardise(-0.00077717, 0.23895642))


def test_all_sizes_that_do_not_fit_are_named_with_their_numbers():
    with pytest.raises(InputError, match=r"num_time_points is 1000, no multiple of patch, 7.*channels is 5.*heads, 2"):
        Chimera(patch=7, channels=5)


def test_an_unknown_structure_is_refused_with_the_known():
    with pytest.raises(InputError, match=r"'full'.*'diagonal' and 'companion'"):
        Chimera(seasonal="full")


def test_card_docstring_and_config_call_it_a_reconstruction_and_claim_no_figure():
    card, config = backbone_card("chimera"), Path(__file__).parents[2] / "configs" / "backbone" / "chimera.yaml"
    assert card.published == ()
    for text in (card.summary, Chimera.__doc__ or "", config.read_text().split("model:")[0]):
        assert "reconstruction" in text.lower()
