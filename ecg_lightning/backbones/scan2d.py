"""The two-dimensional recurrence of Chimera's reconstruction: the plain double loop, and parallel forms equal to it.

    h1[v,t] = A1 h1[v,t-1] + A2 h2[v,t-1] + u1[v,t]
    h2[v,t] = A3 h1[v-1,t] + A4 h2[v-1,t] + u2[v,t]

over variates v (leads) and time t, from zero states, with coefficients that differ from cell to cell.
Source: the equations of Behrouz, Santacatterina, Zabih 2024 (arXiv 2406.04320). No code of the paper's own parallel
scan is public; the forms here are this package's.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 8
"""Time points that one level of the scan over time joins; it takes about CHUNK x log(time) / log(CHUNK) steps."""


class Cells(NamedTuple):
    """Coefficients of every cell, discrete in time and variate; each (batch, variate, time, state, channel).

    ``a1`` .. ``a4`` are diagonals. With ``lags`` (2, state, channel) the states of the cell before in time pass through
    companion matrices first: A1 = diag(a1) S(lags[0]), A2 = diag(a2) S(lags[1]); see `companion`.
    """

    a1: Tensor
    a2: Tensor
    a3: Tensor
    a4: Tensor
    u1: Tensor
    u2: Tensor
    lags: Tensor | None = None


States = tuple[Tensor, Tensor]
"""h1 and h2, each (batch, variate, time, state, channel)."""


def companion(h: Tensor, lags: Tensor) -> Tensor:
    """S(lags) ``h``: the states of ``h`` (..., state, channel) moved one place on, plus ``lags`` times the last one."""
    return F.pad(h[..., :-1, :], (0, 0, 1, 0)) + lags * h[..., -1:, :]


def double_loop(cells: Cells, *, reverse: bool = False) -> States:
    """The recurrence as it is written, cell after cell: the reference, slow.

    Args:
        cells: the coefficients.
        reverse: variates from the last to the first.
    """
    a1, a2, a3, a4, u1, u2, lags = cells
    _, variates, points = u1.shape[:3]
    zero, step = torch.zeros_like(u1[:, 0, 0]), -1 if reverse else 1
    h1: dict[tuple[int, int], Tensor] = {}
    h2: dict[tuple[int, int], Tensor] = {}
    for v in _order(variates, reverse):
        for t in range(points):
            past, beside = (v, t - 1), (v - step, t)
            s1, s2 = h1.get(past, zero), h2.get(past, zero)
            if lags is not None:
                s1, s2 = companion(s1, lags[0]), companion(s2, lags[1])
            h1[v, t] = a1[:, v, t] * s1 + a2[:, v, t] * s2 + u1[:, v, t]
            h2[v, t] = a3[:, v, t] * h1.get(beside, zero) + a4[:, v, t] * h2.get(beside, zero) + u2[:, v, t]
    return _grid(h1, variates, points), _grid(h2, variates, points)


def parallel(cells: Cells, *, reverse: bool = False) -> States:
    """What `double_loop` computes, in few steps over large tensors; arguments as there."""
    if cells.lags is not None:
        return wavefront(cells, reverse=reverse)
    if torch.compiler.is_compiling():
        return doubling(cells, reverse=reverse)
    h1, h2 = _ByVariate.apply(*cells[:6], reverse)  # type: ignore[no-untyped-call]
    return h1, h2


def wavefront(cells: Cells, *, reverse: bool = False) -> States:
    """All cells with the same v + t at once: (time + variate - 1) steps, for any structure of A1 and A2."""
    a1, a2, a3, a4, u1, u2 = (_skewed(tensor.flip(1) if reverse else tensor) for tensor in cells[:6])
    coefficients = torch.stack([torch.stack([a1, a2]), torch.stack([a3, a4])])
    inputs = torch.stack([u1, u2])
    lags = None if cells.lags is None else cells.lags[:, None, None]
    h = torch.zeros_like(inputs[:, :, :, 0])  # (h1 and h2, batch, variate, state, channel)
    fronts = []
    for a, u in zip(coefficients.unbind(4), inputs.unbind(3), strict=True):
        earlier = h if lags is None else companion(h, lags)
        beside = F.pad(h[:, :, :-1], (0, 0, 0, 0, 1, 0))
        h = (a * torch.stack([earlier, beside])).sum(1) + u
        fronts.append(h)
    h1, h2 = (_straightened(states) for states in torch.stack(fronts, dim=3))
    return (h1.flip(1), h2.flip(1)) if reverse else (h1, h2)


def doubling(cells: Cells, *, reverse: bool = False) -> States:
    """Diagonal A1 and A2, variate after variate, joining 1, 2, 4 ... time points: few and plain operations.

    More work than `_ByVariate`, but a graph of a tenth of the nodes, in operations that every exporter knows.
    """
    a1, a2, a3, a4, u1, u2 = (tensor.unbind(1) for tensor in cells[:6])
    h1: dict[int, Tensor] = {}
    h2: dict[int, Tensor] = {}
    before = None
    for v in _order(len(u1), reverse):
        h2[v] = u2[v] if before is None else u2[v] + a3[v] * h1[before] + a4[v] * h2[before]
        h, a, points = u1[v] + a2[v] * _later(h2[v], 1), a1[v], 1
        while points < h.shape[1]:
            h, a, points = h + a * _later(h, points), a * _later(a, points), 2 * points
        h1[v], before = h, v
    return torch.stack([h1[v] for v in range(len(u1))], dim=1), torch.stack([h2[v] for v in range(len(u1))], dim=1)


class _ByVariate(torch.autograd.Function):
    """Diagonal A1 and A2: variate after variate, each one scan over time.

    With h1 and h2 of the variate before, h2 is known at all times, so what drives h1 is as well. The gradient is the
    same recurrence, run from the last variate and time point to the first; coefficients and states are all it keeps.
    """

    @staticmethod
    def forward(
        ctx: Any, a1: Tensor, a2: Tensor, a3: Tensor, a4: Tensor, u1: Tensor, u2: Tensor, reverse: bool
    ) -> States:
        h1, h2 = u1.clone(), u2.clone()
        before = None
        for v in _order(u1.shape[1], reverse):
            if before is not None:
                h2[:, v].addcmul_(a3[:, v], h1[:, before]).addcmul_(a4[:, v], h2[:, before])
            h1[:, v, 1:].addcmul_(a2[:, v, 1:], h2[:, v, :-1])
            scan_(a1[:, v], h1[:, v])
            before = v
        ctx.save_for_backward(a1, a2, a3, a4, h1, h2)
        ctx.reverse = reverse
        return h1, h2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a1, a2, a3, a4, h1, h2 = ctx.saved_tensors
        g1, g2 = gradients[0].clone(), gradients[1].clone()
        behind = None
        for v in _order(g1.shape[1], not ctx.reverse):
            if behind is not None:
                g1[:, v].addcmul_(a3[:, behind], g2[:, behind])
                g2[:, v].addcmul_(a4[:, behind], g2[:, behind])
            if g1.shape[2] > 1:
                g1[:, v, -2].addcmul_(a1[:, v, -1], g1[:, v, -1])
            scan_(a1[:, v, 1:], g1[:, v, :-1], backward=True)
            g2[:, v, :-1].addcmul_(a2[:, v, 1:], g1[:, v, 1:])
            behind = v
        ga1, ga2 = (_by_cell_before(g1, h, 2, False) for h in (h1, h2))
        ga3, ga4 = (_by_cell_before(g2, h, 1, ctx.reverse) for h in (h1, h2))
        return ga1, ga2, ga3, ga4, g1, g2, None


def scan_(a: Tensor, h: Tensor, *, backward: bool = False) -> None:
    """In place, for t in order: h[t] += a[t] h[t-1]; ``backward``: from the end on, h[t] += a[t] h[t+1].

    Chunks of time run side by side, then the states at their ends are scanned in the same way and carried into them.
    Only products of ``a`` are formed: decays in 0..1 cannot overflow, and their underflow is the right answer.

    Args:
        a: (batch, time, state, channel).
        h: of the same shape; the inputs, afterwards the states.
        backward: the direction.
    """
    length = h.shape[1]
    chunks = length // CHUNK if length >= 2 * CHUNK else 0
    whole = chunks * CHUNK
    in_chunks = [tensor[:, :whole].view(len(h), chunks, CHUNK, *h.shape[2:]) for tensor in (a, h) if chunks]
    if chunks and not backward:
        _scan_chunks_(*in_chunks, backward=False)
    first = max(whole, 1)
    for t in range(length - 2, first - 2, -1) if backward else range(first, length):
        h[:, t].addcmul_(a[:, t], h[:, t + 1 if backward else t - 1])
    if chunks and backward:
        _scan_chunks_(*in_chunks, backward=True)


def _scan_chunks_(a: Tensor, h: Tensor, *, backward: bool) -> None:
    """`scan_` of (batch, chunk, time in chunk, state, channel)."""
    product = a.clone()
    for k in range(CHUNK - 2, -1, -1) if backward else range(1, CHUNK):
        before = k + 1 if backward else k - 1
        h[:, :, k].addcmul_(a[:, :, k], h[:, :, before])
        product[:, :, k].mul_(product[:, :, before])
    last = 0 if backward else CHUNK - 1
    ends = h[:, :, last].clone()
    scan_(product[:, :, last], ends, backward=backward)
    into, out_of = (slice(None, -1), slice(1, None)) if backward else (slice(1, None), slice(None, -1))
    h[:, into].addcmul_(product[:, into], ends[:, out_of].unsqueeze(2))


def _order(variates: int, reverse: bool) -> range:
    return range(variates - 1, -1, -1) if reverse else range(variates)


def _grid(cells: dict[tuple[int, int], Tensor], variates: int, points: int) -> Tensor:
    return torch.stack([torch.stack([cells[v, t] for t in range(points)], dim=1) for v in range(variates)], dim=1)


def _later(h: Tensor, points: int) -> Tensor:
    """``h`` (batch, time, ...) moved on by some time points, zeros before."""
    return F.pad(h[:, :-points], (0, 0, 0, 0, points, 0))


def _by_cell_before(g: Tensor, h: Tensor, dim: int, reverse: bool) -> Tensor:
    """``g`` times ``h`` of the cell before along ``dim``, zero at the first cell."""
    length = g.shape[dim] - 1
    product = torch.empty_like(g)
    product.select(dim, length if reverse else 0).zero_()
    here, before = (0, 1) if reverse else (1, 0)
    torch.mul(g.narrow(dim, here, length), h.narrow(dim, before, length), out=product.narrow(dim, here, length))
    return product


def _skewed(x: Tensor) -> Tensor:
    """(batch, variate, time, ...) -> (batch, variate, time + variate - 1, ...), variate v moved v points on."""
    batch, variates, points, *rest = x.shape
    padded = F.pad(x, (0, 0, 0, 0, 0, variates)).flatten(1, 2)
    return padded[:, :-variates].reshape(batch, variates, points + variates - 1, *rest)


def _straightened(x: Tensor) -> Tensor:
    """What `_skewed` made, back to (batch, variate, time, ...)."""
    batch, variates, fronts, *rest = x.shape
    padded = F.pad(x.flatten(1, 2), (0, 0, 0, 0, 0, variates))
    return padded.view(batch, variates, fronts + 1, *rest)[:, :, : fronts - variates + 1]
