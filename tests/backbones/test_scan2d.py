import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_lightning.backbones.scan2d import CHUNK, Cells, companion, double_loop, doubling, parallel, wavefront

FORMS = {"parallel": parallel, "doubling": doubling, "wavefront": wavefront}
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


def random_cells(shape, *, lags=False, dtype=torch.float64, seed=0):
    """Coefficients like those of the network: decays in 0..1, couplings within what they leave."""
    random = torch.Generator().manual_seed(seed)
    a1, a4, c2, c3 = (torch.rand(shape, generator=random, dtype=dtype) for _ in range(4))
    u1, u2 = (torch.randn(shape, generator=random, dtype=dtype) for _ in range(2))
    p = torch.randn(2, *shape[3:], generator=random, dtype=dtype)
    p = p / p.abs().sum(1, keepdim=True)
    return Cells(a1, (1 - a1) * (2 * c2 - 1), (1 - a4) * (2 * c3 - 1), a4, u1, u2, p if lags else None)


def on_leads_reversed(cells):
    return Cells(*(tensor.flip(1) for tensor in cells[:6]), cells.lags)


def assert_same(ours, expected, tolerance):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    form=st.sampled_from(sorted(FORMS)),
    shape=st.tuples(*(st.integers(1, most) for most in (2, 4, 40, 3, 3))),
    reverse=st.booleans(),
    dtype=st.sampled_from(sorted(ROUNDING, key=str)),
    seed=st.integers(0, 1000),
)
def test_every_parallel_form_equals_the_double_loop(form, shape, reverse, dtype, seed):
    cells = random_cells(shape, dtype=dtype, seed=seed)
    assert_same(FORMS[form](cells, reverse=reverse), double_loop(cells, reverse=reverse), ROUNDING[dtype])


@settings(max_examples=10, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (2, 4, 20, 4, 3))),
    reverse=st.booleans(),
    dtype=st.sampled_from(sorted(ROUNDING, key=str)),
    seed=st.integers(0, 1000),
)
def test_companion_matrices_equal_the_double_loop(shape, reverse, dtype, seed):
    cells = random_cells(shape, lags=True, dtype=dtype, seed=seed)
    assert_same(parallel(cells, reverse=reverse), double_loop(cells, reverse=reverse), ROUNDING[dtype])


@pytest.mark.parametrize("reverse", [False, True])
def test_states_and_gradients_over_chunks_of_chunks_equal_those_of_the_double_loop(reverse):
    shape = (2, 3, 2 * CHUNK * CHUNK + 5, 2, 1)
    results = []
    for run in (parallel, double_loop):
        leaves = [tensor.requires_grad_() for tensor in random_cells(shape)[:6]]
        h1, h2 = run(Cells(*leaves), reverse=reverse)
        weights = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        results.append([h1, h2, *torch.autograd.grad((h1 * weights[0] + h2 * weights[1]).sum(), leaves)])
    assert_same(*results, 1e-12)


@pytest.mark.parametrize(
    ("shape", "lags"),
    [((1, 2, 18, 1, 2), False), ((1, 3, 2, 2, 1), False), ((1, 2, 1, 1, 2), False), ((1, 2, 4, 2, 1), True)],
    ids=str,
)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_equal_finite_differences(shape, reverse, lags):
    leaves = [tensor.requires_grad_() for tensor in random_cells(shape, lags=lags) if tensor is not None]
    assert torch.autograd.gradcheck(lambda *tensors: parallel(Cells(*tensors), reverse=reverse), leaves)


def test_a_companion_matrix_moves_states_on_and_has_the_lags_as_its_last_column():
    lags = torch.tensor([[0.5], [-0.2], [0.3]])
    matrix = torch.tensor([[0.0, 0.0, 0.5], [1.0, 0.0, -0.2], [0.0, 1.0, 0.3]])
    h = torch.randn(4, 3, 1)
    torch.testing.assert_close(companion(h, lags), matrix @ h)


@pytest.mark.parametrize("lags", [False, True])
def test_no_state_sees_a_later_time_point(lags):
    cells = random_cells((1, 3, 30, 2, 2), lags=lags)
    changed = [tensor.clone() for tensor in cells[:6]]
    for tensor in changed:
        tensor[:, :, 20:] += 1
    for before, after in zip(parallel(cells), parallel(Cells(*changed, cells.lags)), strict=True):
        assert torch.equal(before[:, :, :20], after[:, :, :20])
        assert not torch.isclose(before[:, :, 20:], after[:, :, 20:]).any()


def test_no_state_sees_a_later_variate_of_its_pass():
    cells = random_cells((1, 4, 10, 2, 2))
    changed = cells._replace(u1=cells.u1.clone().index_fill_(1, torch.tensor([2]), 3.0))
    for reverse, unchanged in ((False, [0, 1]), (True, [3])):
        before, after = parallel(cells, reverse=reverse), parallel(changed, reverse=reverse)
        same = (before[0] == after[0]).flatten(2).all(dim=2)[0]
        assert same.nonzero().flatten().tolist() == unchanged


@pytest.mark.parametrize("lags", [False, True])
def test_the_reverse_pass_is_the_pass_over_reversed_variates(lags):
    cells = random_cells((2, 4, 20, 2, 2), lags=lags)
    mirrored = [states.flip(1) for states in parallel(on_leads_reversed(cells))]
    assert_same(parallel(cells, reverse=True), mirrored, 1e-12)
    assert not torch.allclose(parallel(cells)[0], mirrored[0])


def test_decays_that_underflow_give_zero_not_nan():
    cells = random_cells((1, 2, 5000, 1, 2), dtype=torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (torch.full_like(cells.a1, 1e-30), *cells[1:6])]
    h1, h2 = parallel(Cells(*leaves))
    (h1.sum() + h2.sum()).backward()
    assert all(torch.isfinite(tensor).all() for tensor in (h1, h2, *(leaf.grad for leaf in leaves)))
