"""Chimera, a RECONSTRUCTION from its equations: two-dimensional selective state spaces over leads and time.

Source: Behrouz, Santacatterina, Zabih, NeurIPS 2024 (arXiv 2406.04320), of which no code is public: the 2-D recurrence,
input-dependent B, C and steps, a long-term head of small and a seasonal head of large time steps, both directions along
the variates, gates and a short convolution. Widths, depth, state size and norms are not known; all of them are ours,
and its published PTB-XL figures are not reproduced here.
Differs, for want of knowledge or for stability: the PTB-XL benchmark's mean and deviation normalise; time patches and
a lead embedding in front; both directions share their parameters; coupling and input matrices in multiples of the decay
(see `SelectiveSSM2d`); stochastic depth.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ecg_lightning.backbones.base import Backbone, Card, register
from ecg_lightning.backbones.ptbxl_benchmark import CHAIN
from ecg_lightning.backbones.scan2d import Cells, parallel
from ecg_lightning.backbones.transformer import check_sizes, layer_of_block
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, SignalSpec
from ecg_lightning.stochastic_depth import StochasticDepth

Structure = Literal["diagonal", "companion"]

LONG_TERM_STEPS = (0.01, 0.1)
SEASONAL_STEPS = (0.1, 1.0)
VARIATE_STEPS = (0.1, 1.0)
"""Steps that a channel starts from, spread evenly over their logarithm; in tokens, and in leads."""


class SelectiveSSM2d(nn.Module):
    """One head: the recurrence of `scan2d` with coefficients made from the input, in both directions over the variates.

    Zero-order hold of dh1/dt = A1 h1 + A2 h2 + B1 x and dh2/dv = A3 h1 + A4 h2 + B2 x along each axis, x and the other
    state held over a step: with A1 = -r diagonal, step d and e = exp(-d r), h1 becomes e h1 + (1 - e)/r (A2 h2 + B1 x).
    A2, A3, B1 and B2 are counted in multiples of r, the first two kept within -1..1 by a tanh: each state is then a
    weighted mean of what it was and of what drives it, so no input, step or length lets it grow without bound.
    ``companion``: the states of the point before pass through S(lags / sum |lags|) at every point, the step acts on the
    decay alone. This is ours: an exact hold would need a matrix exponential per token and channel.
    """

    def __init__(
        self, channels: int, state: int, time_steps: tuple[float, float], structure: Structure = "diagonal"
    ) -> None:
        """``time_steps``: smallest and largest step over time that a channel starts from, in tokens."""
        super().__init__()
        self.channels, self.state = channels, state
        self.to_steps = nn.Linear(channels, 2 * channels)
        self.to_matrices = nn.Linear(channels, 4 * state, bias=False)  # B1, B2, C1, C2
        # Rates 1 .. state, as S4D's real initialisation; both axes alike.
        rates = torch.arange(1, state + 1, dtype=torch.float32).log().unsqueeze(-1).expand(2, state, channels)
        self.log_rates = nn.Parameter(rates.clone())
        self.couplings = nn.Parameter(0.5 * torch.randn(2, state, channels))
        self.lags = nn.Parameter(torch.randn(2, state, channels)) if structure == "companion" else None
        self.skip = nn.Parameter(torch.ones(channels))
        with torch.no_grad():
            self.to_steps.weight.mul_(0.1)
            self.to_steps.bias.copy_(
                torch.cat(
                    [
                        _inverse_softplus(_spread(*time_steps, channels)),
                        _inverse_softplus(_spread(*VARIATE_STEPS, channels)),
                    ]
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, variate, time, channel) -> the same shape; at least in float32, whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            b1, b2, c1, c2 = self.to_matrices(x).unsqueeze(-1).chunk(4, dim=-2)  # (batch, variate, time, state, 1)
            cells = self.cells(x, b1, b2)
            onward, back = parallel(cells), parallel(cells, reverse=True)
            y = ((onward[0] + back[0]) * c1 + (onward[1] + back[1]) * c2).sum(-2)
            return y + self.skip * x  # type: ignore[no-any-return]

    def cells(self, x: Tensor, b1: Tensor, b2: Tensor) -> Cells:
        """Coefficients of ``x`` (batch, variate, time, channel); ``b1``, ``b2`` (batch, variate, time, state, 1)."""
        d1, d2 = F.softplus(self.to_steps(x)).unsqueeze(-2).chunk(2, dim=-1)  # (batch, variate, time, 1, channel)
        rate1, rate2 = self.log_rates.exp()
        coupling2, coupling3 = self.couplings.tanh()
        a1, a4 = torch.exp(-d1 * rate1), torch.exp(-d2 * rate2)
        taken1, taken2 = 1 - a1, 1 - a4
        lags = None if self.lags is None else self.lags / self.lags.abs().sum(1, keepdim=True)
        x = x.unsqueeze(-2)
        return Cells(a1, taken1 * coupling2, taken2 * coupling3, a4, taken1 * (b1 * x), taken2 * (b2 * x), lags)


class ChimeraBlock(nn.Module):
    """x + out(heads(SiLU(short convolution(in(norm(x))))) * SiLU(gate))."""

    def __init__(self, index: int, dim: int, channels: int, state: int, *, kernel: int, seasonal: Structure) -> None:
        """``index``: place of the block, 0 first; ``channels``: of both heads together."""
        super().__init__()
        self.kernel = kernel
        self.norm = nn.LayerNorm(dim)
        self.to_branches = nn.Linear(dim, 2 * channels)
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.long_term = SelectiveSSM2d(channels // 2, state, LONG_TERM_STEPS)
        self.seasonal = SelectiveSSM2d(channels // 2, state, SEASONAL_STEPS, seasonal)
        self.out = nn.Linear(channels, dim)
        self.drop = StochasticDepth(index)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, variate, time, dim) -> the same shape."""
        return x + self.drop(x, self.branch)  # type: ignore[no-any-return]

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch; a token sees no later time, and all leads."""
        z, gate = self.to_branches(self.norm(x)).chunk(2, dim=-1)
        z = F.silu(self.short_convolution(z))
        # The states are 2 x state times as large as the tokens: in training they are computed again, not kept.
        again = self.training and torch.is_grad_enabled()
        y = checkpoint(self.heads, z, use_reentrant=False, preserve_rng_state=False) if again else self.heads(z)
        return self.out(y * F.silu(gate))  # type: ignore[no-any-return]

    def short_convolution(self, z: Tensor) -> Tensor:
        """Over the last ``kernel`` tokens of each lead, channel by channel."""
        lead_by_lead = F.pad(z.flatten(0, 1).transpose(1, 2), (self.kernel - 1, 0))
        return self.conv(lead_by_lead).transpose(1, 2).reshape(z.shape)  # type: ignore[no-any-return]

    def heads(self, z: Tensor) -> Tensor:
        """Half of the channels to each head."""
        long_term, seasonal = z.chunk(2, dim=-1)
        return torch.cat([self.long_term(long_term), self.seasonal(seasonal)], dim=-1)


@register(
    Card(
        name="chimera",
        summary="Chimera, a RECONSTRUCTION from the equations of arXiv 2406.04320: 2-D state spaces over leads and "
        "time, 100 Hz, 10 s; sizes are this package's, the published figure is not reproduced",
        repository="this package; the authors published no code",
        commit="as this package",
        code_licence="Apache-2.0",
        weights="none published",
        weights_licence="none published",
        pretraining_data="none: trained from its initialisation",
        ptbxl_in_pretraining=False,
    )
)
class Chimera(Backbone):
    """A reconstruction of Chimera: patches of time of each lead, blocks over leads and time, mean over all tokens."""

    no_weight_decay: ClassVar[frozenset[str]] = frozenset({"lead_embed", "log_rates", "couplings"})

    def __init__(
        self,
        *,
        depth: int = 4,
        dim: int = 64,
        channels: int = 64,
        state: int = 4,
        patch: int = 8,
        kernel: int = 4,
        seasonal: Structure = "diagonal",
        leads: Sequence[str] = LEADS_12,
        sampling_rate: float = 100,
        num_time_points: int = 1000,
    ) -> None:
        """Sizes of the network, all of them this package's choice, and of its input.

        Args:
            depth: number of blocks.
            dim: width of a token.
            channels: of the two heads together, an even number.
            state: states per channel and axis.
            patch: time points of one token; they divide the input. Time and memory grow with 1 / patch.
            kernel: tokens that the short convolution reads.
            seasonal: structure of A1 and A2 in the seasonal head; ``companion`` is several times slower.
            leads: by name, in the order of the recurrence.
            sampling_rate: of the input in Hz.
            num_time_points: length of the input.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        check_sizes(
            {"depth": depth, "dim": dim, "channels": channels, "state": state, "patch": patch, "kernel": kernel}
            | {"num_time_points": num_time_points, "the number of leads": len(leads)},
            [("num_time_points", num_time_points, "patch", patch), ("channels", channels, "the number of heads", 2)],
        )
        if seasonal not in ("diagonal", "companion"):
            raise InputError(f"seasonal is {seasonal!r}, known are 'diagonal' and 'companion'")
        self.signal = SignalSpec(sampling_rate, num_time_points, leads=tuple(leads), chain=CHAIN)
        self.feature_dim, self.num_layers, self.patch = dim, depth + 1, patch
        self.patch_embed = nn.Linear(patch, dim)
        self.lead_embed = nn.Parameter(0.02 * torch.randn(len(leads), 1, dim))
        self.blocks = nn.ModuleList(
            ChimeraBlock(index, dim, channels, state, kernel=kernel, seasonal=seasonal) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, lead x time patch, dim), all patches of the first lead first.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        x = self.patch_embed(ecg.reshape(*ecg.shape[:2], -1, self.patch)) + self.lead_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x).flatten(1, 2)  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> the mean of all tokens, (batch, dim)."""
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """0 for patches and leads, ``i + 1`` for block ``i``, ``num_layers`` for the last norm."""
        return layer_of_block(name, self.num_layers)


def _spread(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(math.log(low), math.log(high), count).exp()


def _inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
