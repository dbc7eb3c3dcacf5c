"""The convolution against the plain recurrence in complex128, and the network against its equations written out."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import cont2discrete
from torch import Tensor

from ecg_lightning.backbones import create_backbone
from ecg_lightning.backbones.s4 import DT_RANGE, S4, S4D, S4Block, initial_poles
from ecg_lightning.chains import Crop
from ecg_lightning.errors import InputError
from ecg_lightning.optim import parameter_groups
from ecg_lightning.stochastic_depth import set_drop_path

LENGTHS = (1, 2, 7, 50, 251)
SMALL = {"depth": 2, "dim": 8, "state": 4, "num_time_points": 40}


def layer(dim: int = 6, state: int = 4, *, bidirectional: bool = True, init: str = "lin") -> S4D:
    torch.manual_seed(0)
    return S4D(dim, state, bidirectional=bidirectional, init=init)


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().numpy()


def recurrence(ssm: S4D, x: Tensor) -> Tensor:
    """``x`` (batch, channel, time) -> the same shape, float64: one state after another, one time point after another.

    Both states of each conjugate pair are run. The backward direction is read before it takes the time point in.
    """
    half = -np.exp(numbers(ssm.log_A_real)) + 1j * numbers(ssm.A_imag)
    outputs = [part[..., 0] + 1j * part[..., 1] for part in numbers(ssm.C)]
    poles = np.concatenate([half, half.conj()], axis=1)
    weights = [np.concatenate([c, c.conj()], axis=1) for c in outputs]
    steps = np.exp(np.exp(numbers(ssm.log_dt))[:, None] * poles)
    gains = (steps - 1) / poles
    signal = numbers(x)
    y = (signal * numbers(ssm.D)[:, None]).astype(np.complex128)
    for n in range(poles.shape[1]):
        h = np.zeros(signal.shape[:2], dtype=np.complex128)
        for t in range(signal.shape[2]):
            h = steps[:, n] * h + gains[:, n] * signal[..., t]
            y[..., t] += weights[0][:, n] * h
        if len(weights) == 1:
            continue
        h = np.zeros(signal.shape[:2], dtype=np.complex128)
        for t in reversed(range(signal.shape[2])):
            y[..., t] += weights[1][:, n] * h
            h = steps[:, n] * h + gains[:, n] * signal[..., t]
    assert abs(y.imag).max() < 1e-9
    return torch.from_numpy(y.real.copy())


@pytest.mark.parametrize("init", ["lin", "inv"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_convolution_equals_the_recurrence_in_float64(length, bidirectional, init):
    ssm = layer(bidirectional=bidirectional, init=init).double()
    x = seeded(2, 6, length)
    torch.testing.assert_close(ssm(x), recurrence(ssm, x), atol=1e-11, rtol=0)


@pytest.mark.parametrize("init", ["lin", "inv"])
@pytest.mark.parametrize("length", [250, 1000])
def test_the_convolution_equals_the_recurrence_in_float32_at_full_size(length, init):
    ssm = layer(512, 8, init=init)
    x = seeded(1, 512, length)
    torch.testing.assert_close(ssm(x.float()).double(), recurrence(ssm, x), atol=1e-5, rtol=0)


def test_the_gradient_is_that_of_the_convolution():
    ssm = layer(2, 4).double()
    x = seeded(2, 2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: ssm(x), (x, *ssm.parameters()))


def test_the_discrete_system_is_scipys_zero_order_hold_of_the_continuous_one():
    ssm = layer(1, 2, bidirectional=False).double()
    ssm.log_A_real.data.fill_(np.log(0.5))
    ssm.A_imag.data.fill_(3.0)
    c_real, c_imag = ssm.C.data.flatten().tolist()
    poles = np.array([[-0.5, -3.0], [3.0, -0.5]])  # real and imaginary part of the state
    system = (poles, np.array([[1.0], [0.0]]), 2 * np.array([[c_real, -c_imag]]), np.zeros((1, 1)))
    a, b, c, *_ = cont2discrete(system, ssm.log_dt.exp().item(), method="zoh")
    expected = [(c @ np.linalg.matrix_power(a, t) @ b).item() for t in range(30)]
    np.testing.assert_allclose(numbers(ssm.kernels(30, torch.float64)[0, 0]), expected, rtol=1e-10)


def test_a_tiny_step_keeps_seven_digits():
    ssm = layer()
    ssm.log_dt.data.fill_(-11.0)
    kernels = ssm.kernels(100, torch.float32).double()
    exact = ssm.double().kernels(100, torch.float64)
    assert ((kernels - exact).abs().max() / exact.abs().max()).item() < 1e-6


# --- before and behind ---


def spread(ssm: S4D, changed: int, length: int = 40) -> Tensor:
    """How far each output moves (time,) when the input moves at ``changed``; nothing decays within the length."""
    ssm.double().log_dt.data.fill_(-6.0)
    x = seeded(1, 6, length)
    moved = x.clone()
    moved[..., changed] += 1.0
    return (ssm(moved) - ssm(x)).abs().amax(dim=(0, 1))


@pytest.mark.parametrize("changed", [0, 17, 39])
def test_forward_in_time_nothing_moves_before_a_change(changed):
    moved = spread(layer(bidirectional=False), changed)
    assert (moved[:changed] < 1e-12).all()
    assert (moved[changed:] > 1e-3).all()


@pytest.mark.parametrize("changed", [0, 17, 39])
def test_backward_in_time_nothing_moves_at_a_change_or_behind_it(changed):
    ssm = layer()
    ssm.C.data[0] = 0.0
    ssm.D.data.zero_()
    moved = spread(ssm, changed)
    assert (moved[changed:] < 1e-12).all()
    assert (moved[:changed] > 1e-3).all()


def test_tokens_of_a_network_forward_in_time_do_not_depend_on_what_follows():
    torch.manual_seed(0)
    backbone = S4(**SMALL, bidirectional=False).double().eval()
    ecg = seeded(1, 12, 40)
    torch.testing.assert_close(backbone.tokens(ecg)[:, :25], backbone.tokens(ecg[..., :25]), atol=1e-12, rtol=0)
    both = S4(**SMALL).double().eval()
    assert (both.tokens(ecg)[:, :25] - both.tokens(ecg[..., :25])).abs().max() > 1e-3


# --- initial values ---


def test_s4d_lin_starts_at_minus_a_half_and_multiples_of_pi():
    real, imag = initial_poles(8, "lin")
    torch.testing.assert_close(real, torch.full((4,), -0.5))
    torch.testing.assert_close(imag, torch.tensor([0.0, 3.1415927, 6.2831853, 9.424778]))


def test_s4d_inv_starts_at_the_inverse_law():
    real, imag = initial_poles(8, "inv")
    torch.testing.assert_close(real, torch.full((4,), -0.5))
    torch.testing.assert_close(imag, torch.tensor([17.825354, 4.2441316, 1.5278874, 0.3637827]))


def test_s4d_inv_follows_the_large_poles_of_hippo_legs():
    """Their imaginary parts are those of the normal part of the HiPPO matrix, which the law approximates."""
    states = 256
    root = np.sqrt(2 * np.arange(states) + 1)
    normal = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(states) + 1) + np.outer(root, root) / 2
    eigenvalues = np.linalg.eigvals(normal)
    np.testing.assert_allclose(eigenvalues.real, -0.5, atol=1e-8)
    largest = np.sort(eigenvalues.imag)[::-1][:3]
    np.testing.assert_allclose(numbers(initial_poles(states, "inv")[1])[:3], largest, rtol=0.03)


@pytest.mark.parametrize("init", ["lin", "inv"])
def test_a_layer_starts_as_the_source_says(init):
    ssm = layer(4000, 8, init=init)
    real, imag = initial_poles(8, init)
    torch.testing.assert_close(-ssm.log_A_real.exp(), real.expand(4000, 4))
    torch.testing.assert_close(ssm.A_imag.data, imag.expand(4000, 4))
    low, high = np.log(DT_RANGE)
    assert DT_RANGE == (0.001, 0.1)
    assert low <= ssm.log_dt.min() < low + 0.01 < high - 0.01 < ssm.log_dt.max() <= high
    assert ssm.log_dt.mean().item() == pytest.approx((low + high) / 2, abs=0.1)
    assert ssm.C.square().sum(dim=-1).mean().item() == pytest.approx(1.0, abs=0.03)
    assert ssm.D.std().item() == pytest.approx(1.0, abs=0.05)


# --- the network ---


@pytest.mark.parametrize("prenorm", [False, True])
def test_the_network_equals_its_equations_written_out(prenorm):
    torch.manual_seed(0)
    backbone = S4(**SMALL, prenorm=prenorm).double().eval()
    ecg = seeded(2, 12, 40)
    x = torch.einsum("blt,dl->btd", ecg, backbone.encoder.weight) + backbone.encoder.bias
    for block in backbone.blocks:
        before = norm(block, x) if prenorm else x
        y = recurrence(block.ssm, before.transpose(1, 2)).transpose(1, 2)
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        value, gate = (y @ block.mix.weight.T + block.mix.bias).chunk(2, dim=-1)
        x = x + value * torch.sigmoid(gate)
        x = x if prenorm else norm(block, x)
    torch.testing.assert_close(backbone.tokens(ecg), x, atol=1e-10, rtol=0)
    torch.testing.assert_close(backbone(ecg), x.sum(dim=1) / 40, atol=1e-10, rtol=0)


def norm(block: S4Block, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * block.norm.weight + block.norm.bias


def test_other_lengths_than_the_windows_run_and_other_leads_are_refused():
    backbone = S4(**SMALL).eval()
    assert backbone.tokens(torch.zeros(2, 12, 333)).shape == (2, 333, 8)
    with pytest.raises(InputError, match=r"12 leads, any number of.*\(2, 8, 40\)"):
        backbone(torch.zeros(2, 8, 40))


def test_dropout_takes_whole_channels_and_acts_in_training_alone():
    torch.manual_seed(0)
    block = S4Block(0, 64, 4, bidirectional=True, init="lin", dropout=0.5, prenorm=False)
    x = torch.randn(4, 30, 64)
    dropped = block.train().branch(x) == 0
    assert (dropped.all(dim=1) == dropped.any(dim=1)).all()
    assert 0.4 < dropped.all(dim=1).float().mean() < 0.6
    assert not (block.eval().branch(x) == 0).any()


def test_dropout_also_takes_channels_between_state_space_and_linear_layer():
    torch.manual_seed(0)
    block = S4Block(0, 64, 4, bidirectional=True, init="lin", dropout=0.5, prenorm=False)
    seen: list[Tensor] = []
    block.mix.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    block.train().branch(torch.randn(4, 30, 64))
    assert 0.4 < (seen[0] == 0).all(dim=1).float().mean() < 0.6


def test_every_block_has_the_dropout_asked_for_and_the_published_one_by_default():
    assert [block.dropout.p for block in S4().blocks] == [0.2] * 4
    assert [block.dropout.p for block in S4(**SMALL, dropout=0.4).blocks] == [0.4] * 2


def test_with_the_norm_in_the_branch_a_dropped_block_leaves_its_input():
    backbone, x = S4(**SMALL, prenorm=True).train(), torch.randn(2, 40, 8)
    set_drop_path(backbone, 1.0, "uniform")
    assert torch.equal(backbone.blocks[1](x), x)
    assert torch.equal(backbone.shortcut(1, x), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_state_space_in_float32(dtype):
    ssm, x = layer(), seeded(2, 6, 50).float()
    with torch.autocast("cpu", dtype):
        inside, halved = ssm(x), ssm(x.to(dtype))
    assert torch.equal(inside, ssm(x))
    assert halved.dtype == dtype
    assert torch.equal(halved, ssm(x.to(dtype).float()).to(dtype))


def test_a_network_trains_under_autocast_close_to_float32():
    backbone, ecg = create_backbone("s4", **SMALL, dropout=0.0).train(), seeded(2, 12, 40).float()
    plain = backbone(ecg)
    with torch.autocast("cpu", torch.bfloat16):
        halved = backbone(ecg)
    assert (halved - plain).abs().max() < 0.05
    halved.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())


def test_a_network_in_bfloat16_throughout_runs():
    backbone = S4(**SMALL).to(torch.bfloat16).eval()
    assert backbone(seeded(2, 12, 40).to(torch.bfloat16)).dtype == torch.bfloat16


def test_step_sizes_and_poles_get_no_weight_decay_and_the_outputs_do():
    decayed = {
        name.rpartition(".")[2]: group["decay"]
        for group in parameter_groups(S4(**SMALL), torch.nn.Linear(8, 5))
        for name in group["names"]
        if ".ssm." in name
    }
    assert decayed == {"log_dt": False, "log_A_real": False, "A_imag": False, "D": False, "C": True}


def test_it_has_as_many_parameters_as_the_published_sizes_make():
    norm, mix, ssm = 2 * 512, 1024 * 513, 512 * (1 + 4 + 4 + 2 * 4 * 2 + 1)
    assert sum(parameter.numel() for parameter in S4().parameters()) == 13 * 512 + 4 * (norm + mix + ssm)


def test_windows_of_250_points_follow_each_other_and_are_averaged():
    signal = S4().signal
    assert (signal.record_rate, signal.num_time_points, signal.chain) == (100, 250, (Crop(),))
    assert (signal.windows.train, signal.windows.aggregate) == ("random", "mean")
    assert signal.windows.evaluation_starts(1000, signal.window_points) == [0, 250, 500, 750]


def test_a_whole_record_is_one_window():
    signal = S4(**SMALL | {"num_time_points": 5000, "sampling_rate": 500}).signal
    assert signal.record_rate == 500
    assert signal.windows.evaluation_starts(5000, signal.window_points) == [0]


def test_sizes_and_initial_values_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"state is 7, no multiple of .*2"):
        S4(state=7)
    with pytest.raises(InputError, match=r"depth is 0"):
        S4(depth=0)
    with pytest.raises(InputError, match=r"init is 'legs', known are 'lin' and 'inv'"):
        S4(init="legs")
