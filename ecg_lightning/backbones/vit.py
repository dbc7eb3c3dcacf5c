"""Vision transformers over the ECG as an image of leads x time points: `vit` of any size, and MTECG-T.

Source: fwaiaccount/MTECG-SPEED-TR, MTECG_arch/models/{et_family,vision_transformer}.py, commit 5cc73ae (no licence
stated, so all rights reserved); written anew from a description, equal to its outputs on the same weights.
Differs: one StochasticDepth per branch instead of one per block; the head is not part of the backbone.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Card, register
from ecg_lightning.backbones.patches import PatchBackbone, taken
from ecg_lightning.backbones.transformer import Block, check_sizes, layer_of_block
from ecg_lightning.chains import Chain, Crop, ZScore
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import LEADS_12, SignalSpec

Readout = Literal["class_token", "mean"]
Normalise = Literal["record", "lead", "none"]

EPS = 1e-6
"""Of every LayerNorm, as published; the framework's own 1e-5 moves the tokens by 2e-4."""

CHAINS: dict[Normalise, Chain] = {
    "record": (Crop(), ZScore("record")),
    "lead": (Crop(), ZScore("lead")),
    "none": (Crop(),),
}


class PatchEmbed(nn.Module):
    """Cuts the ECG into patches of leads x time points and maps each to a token."""

    def __init__(self, patch: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=patch, stride=patch)

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), all time patches of the first group of leads first."""
        return self.proj(ecg.unsqueeze(1)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def of_values(self, values: Tensor) -> Tensor:
        """``values`` (batch, token, value) of single patches, lead by lead -> (batch, token, dim)."""
        return F.linear(values, self.proj.weight.flatten(1), self.proj.bias)


@register(
    Card(
        name="vit",
        summary="Plain ViT over patches of leads x time points, of any size; by default small, for 100 Hz records",
        repository="this package; layers as fwaiaccount/MTECG-SPEED-TR",
        commit="as this package",
        code_licence="Apache-2.0",
        weights="none published",
        weights_licence="none published",
        pretraining_data="none: trained from its initialisation, or from a checkpoint of one's own",
        ptbxl_in_pretraining=False,
    )
)
class ViT(PatchBackbone):
    """Pre-norm transformer with a class token and learned positions, for unfiltered stores."""

    no_weight_decay = frozenset({"cls_token", "pos_embed"})
    published_key = "model"
    # Of a masked autoencoder only the encoder is used.
    unused_prefixes: ClassVar[tuple[str, ...]] = ("head.", "decoder_", "mask_token")

    def __init__(
        self,
        *,
        depth: int = 6,
        dim: int = 192,
        heads: int = 3,
        mlp_ratio: int = 4,
        patch: tuple[int, int] = (12, 25),
        sampling_rate: float = 100,
        num_time_points: int = 1000,
        readout: Readout = "class_token",
        normalise: Normalise = "record",
        dropout: float = 0.0,
    ) -> None:
        """Sizes of the network and of its input.

        Args:
            depth: number of blocks.
            dim: width of a token, a multiple of ``heads``.
            heads: attention heads.
            mlp_ratio: hidden width of the MLPs in multiples of ``dim``.
            patch: leads x time points of one token; both divide the input.
            sampling_rate: of the input in Hz.
            num_time_points: length of the input.
            readout: ``class_token`` after the final norm, or ``mean`` of the patch tokens, then a norm.
            normalise: z-score over the whole ``record``, over each ``lead``, or ``none`` (mV as they are).
            dropout: behind the embedding, the attention's projection and the layers of the MLPs.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        num_leads, (patch_leads, patch_points) = len(LEADS_12), patch
        check_sizes(
            {"depth": depth, "dim": dim, "heads": heads, "mlp_ratio": mlp_ratio, "num_time_points": num_time_points}
            | {"patch[0]": patch_leads, "patch[1]": patch_points},
            [
                ("num_time_points", num_time_points, "patch[1]", patch_points),
                ("the number of leads", num_leads, "patch[0]", patch_leads),
                ("dim", dim, "heads", heads),
            ],
        )
        _check_choices(readout, normalise)
        num_patches = num_leads // patch_leads * (num_time_points // patch_points)
        self.signal = SignalSpec(sampling_rate, num_time_points, chain=CHAINS[normalise])
        self.feature_dim, self.num_layers, self.readout = dim, depth + 1, readout
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(index, dim, heads, mlp_ratio=mlp_ratio, eps=EPS, dropout=dropout) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS) if readout == "class_token" else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=EPS) if readout == "mean" else nn.Identity()
        self._initialise()

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, 1 + patch, dim), class token first; un-normed where the mean is read.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        x = self.patch_embed(ecg)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.dropout(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]

    @property
    def patch_size(self) -> tuple[int, int]:
        """As ``patch``."""
        leads, points = self.patch_embed.proj.kernel_size
        return leads, points

    @property
    def patch_grid(self) -> tuple[int, int]:
        """The input in patches."""
        leads, points = self.patch_size
        return len(self.signal.leads) // leads, self.signal.num_time_points // points

    def visible_tokens(self, ecg: Tensor, visible: Tensor) -> Tensor:
        """As `PatchBackbone` says; the class token is seen by the patches, and left out.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        positions = self.pos_embed.expand(len(ecg), -1, -1)
        x = self.patch_embed.of_values(taken(self.patch_values(ecg), visible)) + taken(positions[:, 1:], visible)
        x = self.dropout(torch.cat([self.cls_token + positions[:, :1], x], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(self.norm(x))[:, 1:]  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> the class token, or the mean of the patch tokens, (batch, dim)."""
        x = self.tokens(ecg)
        return self.fc_norm(x[:, 1:].mean(dim=1)) if self.readout == "mean" else x[:, 0]

    def layer_of(self, name: str) -> int:
        """0 for patches, class token and positions, ``i + 1`` for block ``i``, ``num_layers`` for the last norm."""
        return layer_of_block(name, self.num_layers)

    def _initialise(self) -> None:
        """Normal of deviation 0.02 for linear layers, class token and positions; the patches keep torch's default."""
        for tensor in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


@register(
    Card(
        name="mtecg_ti",
        summary="MTECG-T (arXiv 2309.07136): ViT-Tiny over patches of 12 leads x 50 ms, 500 Hz, 10 s",
        repository="github.com/fwaiaccount/MTECG-SPEED-TR",
        commit="5cc73aed90bd5f13e9fc64112923e1ff36968554",
        code_licence="none stated (all rights reserved); no code of it is used here",
        weights="none published",
        weights_licence="none published",
        pretraining_data="masked autoencoder on the private Fuwai set, 220,251 ECGs (abstract)",
        ptbxl_in_pretraining=None,
    )
)
class MTECGTi(ViT):
    """MTECG-T, 5.4 million parameters.

    Differs: how its authors filter and normalise is not published; the z-score is a choice of this package.
    """

    def __init__(
        self, *, readout: Readout = "class_token", normalise: Normalise = "record", dropout: float = 0.0
    ) -> None:
        """As `ViT`; ``readout="mean"`` is the published class with ``global_pool=True``."""
        super().__init__(
            depth=12,
            dim=192,
            heads=3,
            patch=(12, 25),
            sampling_rate=500,
            num_time_points=5000,
            readout=readout,
            normalise=normalise,
            dropout=dropout,
        )


def _check_choices(readout: str, normalise: str) -> None:
    problems = []
    if readout not in ("class_token", "mean"):
        problems.append(f"readout is {readout!r}, known are 'class_token' and 'mean'")
    if normalise not in CHAINS:
        problems.append(f"normalise is {normalise!r}, known are 'record', 'lead' and 'none'")
    if problems:
        raise InputError(joined(problems))
