"""S4: diagonal state space layers (S4D) over all time points of a 12-lead ECG, trained from a random start.

Source: the equations of S4D (Gu et al. 2022, arXiv 2206.11893): initial values, zero-order hold, kernel as a product
with a Vandermonde matrix, convolution by FFT; written anew. Read in state-spaces/s4, models/s4/s4d.py, commit 2ed46fc
(Apache-2.0): which numbers are parameters, how they start, GELU, dropout and the GLU behind the state space. Read in
tmehari/ssm_ecg (Mehari & Strodthoff 2022, arXiv 2211.07579), code/dl_models/s4_model.py and code/train_ecg_model.py,
commit 3500ff3, and its README at 9450063 (MIT): the encoder, 4 layers of width 512 with 8 states, both directions from
one A, the norm behind the sum, dropout 0.2 of whole channels at two places, the mean over time, windows of 2.5 s at
100 Hz in mV (its `--normalize` is off), 2.5 s apart in evaluation and averaged.
Chosen here: S4D-Lin by default (that of s4d.py), S4D-Inv by ``init``.
Differs: ssm_ecg's S4 has a low-rank part in its state matrix (S4-LegS, bilinear) where this one is diagonal, so its
published figures are a neighbour's; stochastic depth around each branch, before the sum; exp(dt A) - 1 without
cancellation. s4d.py gives dt and A their own rate, at most 1e-3, and no weight decay: they have no weight decay here
as well, but the rate of their layer, as groups of parameters here have one rate a layer; ssm_ecg trains all at 1e-3.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone, Card, Figures, register
from ecg_lightning.backbones.transformer import check_sizes, layer_of_block
from ecg_lightning.chains import Crop
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, SignalSpec, Windows
from ecg_lightning.stochastic_depth import StochasticDepth

Init = Literal["lin", "inv"]

DT_RANGE = (1e-3, 1e-1)
"""Step sizes start between these, evenly in their logarithm, in units of the time between two points."""

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")


class S4D(nn.Module):
    """One diagonal state space per channel, as a convolution over time.

    Per channel the states ``n`` follow ``h[n]' = A[n] h[n] + x`` and ``y = 2 Re sum C[n] h[n] + D x``; of each pair of
    conjugate states one is kept. Backward in time runs a second C over the same states, over what lies strictly behind.
    """

    def __init__(self, dim: int, state: int, *, bidirectional: bool, init: Init) -> None:
        """``state``: states of a channel, even: both of each conjugate pair are counted."""
        super().__init__()
        low, high = (math.log(dt) for dt in DT_RANGE)
        real, imag = initial_poles(state, init)
        self.log_dt = nn.Parameter(low + (high - low) * torch.rand(dim))
        self.log_A_real = nn.Parameter(torch.log(-real).repeat(dim, 1))  # (channel, pair)
        self.A_imag = nn.Parameter(imag.repeat(dim, 1))
        # Real and imaginary part; together of variance 1.
        self.C = nn.Parameter(torch.randn(2 if bidirectional else 1, dim, state // 2, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(dim))

    def kernels(self, num_time_points: int, dtype: torch.dtype) -> Tensor:
        """What an impulse leaves behind, (direction, channel, time): ``2 Re sum C (exp(dt A) - 1) / A exp(dt A t)``.

        In real arithmetic throughout, so that it compiles, exports and is reduced over processes like any other.
        """
        dt = self.log_dt.to(dtype).exp().unsqueeze(-1)
        a_real, a_imag = -self.log_A_real.to(dtype).exp(), self.A_imag.to(dtype)
        growth, turn = dt * a_real, dt * a_imag  # exp(dt A) = exp(growth) (cos turn + i sin turn)
        # exp(dt A) - 1; where dt A is small, the plain difference loses four digits of seven.
        up_real = torch.expm1(growth) * turn.cos() - 2 * (turn / 2).sin().square()
        up_imag = growth.exp() * turn.sin()
        square = a_real.square() + a_imag.square()
        b_real, b_imag = (up_real * a_real + up_imag * a_imag) / square, (up_imag * a_real - up_real * a_imag) / square
        c_real, c_imag = self.C.to(dtype).unbind(-1)
        weights = torch.cat([c_real * b_real - c_imag * b_imag, c_real * b_imag + c_imag * b_real], dim=-1)
        time = torch.arange(num_time_points, device=dt.device, dtype=dtype)
        decay, phase = (growth.unsqueeze(-1) * time).exp(), turn.unsqueeze(-1) * time  # (channel, pair, time)
        vandermonde = torch.cat([decay * phase.cos(), -decay * phase.sin()], dim=1)
        kernels: Tensor = 2 * torch.einsum("kdp,dpt->kdt", weights, vandermonde)
        return kernels

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> the same shape and type; in float32 or better, whatever autocast says."""
        points, dtype = x.shape[-1], torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            kernels = self.kernels(points, dtype)
            # The convolution is circular over twice the length, so that nothing comes round: the forward kernel lies
            # in the first half, the reversed backward one in the second, where places count from -1 downwards.
            kernel = F.pad(kernels[0], (0, points))
            if len(kernels) == 2:
                kernel = kernel + F.pad(kernels[1].flip(-1), (points, 0))
            # In training one record of zeros more: stochastic depth may leave none, and MKL transforms no empty batch.
            padded = F.pad(x.to(dtype), (0, points, 0, 0, 0, int(self.training)))
            y: Tensor = torch.fft.irfft(torch.fft.rfft(padded) * torch.fft.rfft(kernel), n=2 * points)
            y = y[: x.shape[0], :, :points] + x * self.D.to(dtype).unsqueeze(-1)
        return y.to(x.dtype)


def initial_poles(state: int, init: Init) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts (pair,) that the diagonal of A starts with.

    S4D-Lin: ``-1/2 + i pi n``; S4D-Inv: ``-1/2 + i N / pi (N / (2 n + 1) - 1)``, ``N`` the number of states.
    Source: arXiv 2206.11893, S4D-Lin and S4D-Inv.
    """
    n = torch.arange(state // 2, dtype=torch.get_default_dtype())
    imag = math.pi * n if init == "lin" else state / math.pi * (state / (2 * n + 1) - 1)
    return torch.full_like(imag, -0.5), imag


class S4Block(nn.Module):
    """State space, GELU and a gated linear layer over the channels, added to the input; the norm behind the sum."""

    def __init__(
        self, index: int, dim: int, state: int, *, bidirectional: bool, init: Init, dropout: float, prenorm: bool
    ) -> None:
        """``index``: place of the block in the network, 0 first; ``prenorm``: the norm in the branch instead."""
        super().__init__()
        self.prenorm = prenorm
        self.norm = nn.LayerNorm(dim)
        self.ssm = S4D(dim, state, bidirectional=bidirectional, init=init)
        self.mix = nn.Linear(dim, 2 * dim)
        self.dropout = nn.Dropout1d(dropout)
        self.drop = StochasticDepth(index)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, time, dim) -> the same shape."""
        x = x + self.drop(x, self.branch)
        return x if self.prenorm else self.norm(x)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch; dropout takes whole channels of a record, behind the GELU and at the end."""
        x = self.norm(x) if self.prenorm else x
        x = self.dropout(F.gelu(self.ssm(x.transpose(1, 2)))).transpose(1, 2)
        x = F.glu(self.mix(x), dim=-1)
        return self.dropout(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


@register(
    Card(
        name="s4",
        summary="S4D in both directions over 2.5 s at 100 Hz, the strongest supervised baseline of 2025: from scratch",
        repository="this package, from the equations of arXiv 2206.11893; sizes and protocol of "
        "github.com/tmehari/ssm_ecg, layer as in github.com/state-spaces/s4, models/s4/s4d.py",
        commit="ssm_ecg 3500ff36a2ccb371cd09c625bb67eba37546eaa4; s4 2ed46fcf77f2392145ceb801a553367c9111675a",
        code_licence="Apache-2.0 (ssm_ecg: MIT, state-spaces/s4: Apache-2.0; no code of them is used here)",
        weights="none published",
        weights_licence="none published",
        pretraining_data="none: trained from its initialisation, or from a checkpoint of one's own",
        ptbxl_in_pretraining=False,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.941, 0.943, 0.938, 0.932, 0.919, 0.956), strict=True)),
                protocol="an S4 trained from scratch, its kind and sizes not read: PTB-XL, folds 1-8 / 9 / 10, windows "
                "of 2.5 s at 100 Hz; diagnostic, form and rhythm look like parts of one all-label model",
                source="ecg-fm-benchmarking, Confidence_Interval.xlsx, sheet Supervised (not measured here)",
            ),
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.938, 0.939, 0.929, 0.931, 0.895, 0.977), strict=True)),
                protocol="S4, from scratch: PTB-XL, folds 1-8 / 9 / 10, whole records of 10 s at 100 Hz",
                source="arXiv 2512.23824, table 3 (not measured here)",
            ),
        ),
    )
)
class S4(Backbone):
    """S4D classifier with the sizes of Mehari & Strodthoff 2022 (2.2 million parameters); any length of input runs."""

    # One-axis tensors (dt) have none anyway; named with A, as the published rule does.
    no_weight_decay = frozenset({"log_dt", "log_A_real", "A_imag"})

    def __init__(
        self,
        *,
        dim: int = 512,
        depth: int = 4,
        state: int = 8,
        num_time_points: int = 250,
        bidirectional: bool = True,
        dropout: float = 0.2,
        sampling_rate: float = 100,
        init: Init = "lin",
        prenorm: bool = False,
    ) -> None:
        """Sizes of the network and of its windows.

        Args:
            dim: channels.
            depth: number of blocks.
            state: states of a channel, both of each conjugate pair counted, so even.
            num_time_points: length of a window, and in evaluation the distance between two windows of a record.
            bidirectional: also backward in time; without it a token depends on no later time point.
            dropout: of whole channels, twice in each block.
            sampling_rate: of the input in Hz.
            init: what the diagonal of A starts with, S4D-Lin or S4D-Inv (`initial_poles`).
            prenorm: the norm at the start of the branch instead of behind the sum.

        Raises:
            InputError: naming the sizes that do not fit.
        """
        super().__init__()
        check_sizes(
            {"dim": dim, "depth": depth, "state": state, "num_time_points": num_time_points},
            [("state", state, "the two states of a conjugate pair", 2)],
        )
        if init not in ("lin", "inv"):
            raise InputError(f"init is {init!r}, known are 'lin' and 'inv'")
        windows = Windows(stride=num_time_points)
        self.signal = SignalSpec(sampling_rate, num_time_points, chain=(Crop(),), windows=windows)
        self.feature_dim, self.num_layers, self.prenorm = dim, depth, prenorm
        self.encoder = nn.Linear(len(LEADS_12), dim)
        self.blocks = nn.ModuleList(
            S4Block(index, dim, state, bidirectional=bidirectional, init=init, dropout=dropout, prenorm=prenorm)
            for index in range(depth)
        )

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, time, dim).

        Raises:
            InputError: when the leads are not those of ``signal``.
        """
        self.check_input(ecg, any_length=True)
        x = self.encoder(ecg.transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return x  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the time points, (batch, dim)."""
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """0 for the encoder, ``i + 1`` for block ``i``."""
        return layer_of_block(name, self.num_layers)

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """The norm of ``x``, which stands behind the sum; ``x`` itself with ``prenorm``."""
        return x if self.prenorm else self.blocks[block].norm(x)  # type: ignore[operator]
