"""ST-MEM: a transformer over patches of single leads, which separators and lead embeddings tell apart.

Source: bakqui/ST-MEM, models/encoder/{st_mem_vit,vit}.py, commit 69ec70246c01fe32b14dea810af812556c06eab0 (CC BY-NC
4.0, VUNO Inc., all rights reserved: nothing of it is copied); paper Na et al. 2024 (arXiv 2402.09450). Written anew
from a description, equal to its outputs on the same weights.
Differs: blocks have the names of this package, `load_weights` translates; no weight decay on tokens and positions; the
loss of a record is the mean over its windows, not that of the mean logits; no RandAugment in training.
"""

import re
from typing import ClassVar

import torch
from torch import Tensor, nn

from ecg_lightning.backbones.base import Card, Figures, register
from ecg_lightning.backbones.patches import PatchBackbone, taken
from ecg_lightning.backbones.transformer import Block, check_sizes, layer_of_block
from ecg_lightning.chains import Chain, Crop, Resample, WindowFilter, ZScore
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, SignalSpec, Windows

PATCH = 75
"""Time points of a token: 0.3 s at 250 Hz."""
MAX_PATCHES = 30
"""Of one lead; the table of positions has two rows more, for the separators."""

CHAIN: Chain = (
    Resample(250),
    Crop(),
    WindowFilter("highpass", 0.67, 250),
    WindowFilter("lowpass", 40.0, 250),
    ZScore("record"),
)
"""As util/transforms.py and configs/downstream/st_mem.yaml: the filters come behind the crop, so that their edges lie
in every window. There nothing is added to the deviation and a constant window becomes 0, as it does here."""

_BLOCK_PARTS = {
    "attn.norm": "norm1",
    "attn.fn.to_qkv": "attn.qkv",
    "attn.fn.to_out.0": "attn.proj",
    "ff.norm": "norm2",
    "ff.fn.net.0": "mlp.fc1",
    "ff.fn.net.3": "mlp.fc2",
}
_PUBLISHED_BLOCK = re.compile(r"block(\d+)\.(.+)\.(weight|bias)")

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")
_BENCHMARK = "ecg-fm-benchmarking, Confidence_Interval.xlsx (not measured here)"
_PROTOCOL = "PTB-XL, folds 1-8 / 9 / 10, 2.4 s at 250 Hz, one model per task; maybe with re-trained weights"


@register(
    Card(
        name="st_mem_base",
        summary="ST-MEM (arXiv 2402.09450): ViT-B over patches of one lead x 0.3 s, 250 Hz, 9 s, masked autoencoder",
        repository="github.com/bakqui/ST-MEM",
        commit="69ec70246c01fe32b14dea810af812556c06eab0",
        code_licence="CC BY-NC 4.0, VUNO Inc., all rights reserved; no code of it is used here",
        weights="linked from the readme, Google Drive: encoder 1E7J-A1HqWa2f08T6Sfk5uWk-_CFJhOYQ, whole "
        "autoencoder 14nScwPk35sFi8wc-cuLJLqudVwynKS0n; either loads",
        weights_licence="none of their own stated; the readme that links them is CC BY-NC 4.0: non-commercial",
        pretraining_data="Chapman, Ningbo and CODE-15, PTB-XL downstream alone (recalled from the paper, not checked; "
        "the repository names no data set)",
        ptbxl_in_pretraining=None,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.908, 0.904, 0.916, 0.901, 0.887, 0.951), strict=True)),
                protocol=f"fine-tuned; {_PROTOCOL}",
                source=_BENCHMARK,
            ),
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.908, 0.903, 0.916, 0.896, 0.889, 0.951), strict=True)),
                protocol=f"linear probe; {_PROTOCOL}",
                source=f"{_BENCHMARK}, sheet Linear",
            ),
        ),
    )
)
class STMEM(PatchBackbone):
    """ST-MEM's encoder, 85.2 million parameters: 12 leads x 30 patches, all of which see one another."""

    no_weight_decay = frozenset({"pos_embedding"})
    published_key = "model"
    published_prefix: ClassVar[str | None] = "encoder."

    def __init__(
        self,
        *,
        depth: int = 12,
        dim: int = 768,
        heads: int = 12,
        dropout: float = 0.0,
        num_time_points: int = MAX_PATCHES * PATCH,
    ) -> None:
        """Sizes of the network; the defaults are those of the published weights.

        Args:
            depth: number of blocks.
            dim: width of a token, a multiple of ``heads``.
            heads: attention heads.
            dropout: behind the embedding, the attention's projection and the layers of the MLPs.
            num_time_points: length of the windows at 250 Hz, a multiple of 75 up to 2250; the weights fit all of them.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        check_sizes(
            {"depth": depth, "dim": dim, "heads": heads, "num_time_points": num_time_points},
            [("dim", dim, "heads", heads), ("num_time_points", num_time_points, "the patch", PATCH)],
        )
        if num_time_points > MAX_PATCHES * PATCH:
            raise InputError(f"num_time_points is {num_time_points}, it must be {MAX_PATCHES * PATCH} or less")
        self.signal = SignalSpec(500, num_time_points, chain=CHAIN, windows=Windows(count=3))
        self.feature_dim, self.num_layers = dim, depth + 1
        self.to_patch_embedding = nn.Sequential(
            nn.Unflatten(-1, (-1, PATCH)), nn.LayerNorm(PATCH), nn.Linear(PATCH, dim), nn.LayerNorm(dim)
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, MAX_PATCHES + 2, dim))
        self.sep_embedding = nn.Parameter(torch.randn(dim))
        self.lead_embeddings = nn.ParameterList(torch.randn(dim) for _ in LEADS_12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(index, dim, heads, mlp_ratio=4, eps=1e-5, dropout=dropout) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), un-normed: lead by lead separator, patches, separator.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        patches = self.to_patch_embedding(ecg)  # (batch, lead, patch, dim)
        batch, lead, patch, dim = patches.shape
        positions = self.pos_embedding[0]
        left, right = ((self.sep_embedding + positions[row]).expand(batch, lead, 1, dim) for row in (0, -1))
        x = torch.cat([left, patches + positions[1 : patch + 1], right], dim=2)
        x = x + torch.stack([*self.lead_embeddings]).unsqueeze(1)
        x = self.dropout(x.flatten(1, 2))
        for block in self.blocks:
            x = block(x)
        return x  # type: ignore[no-any-return]

    @property
    def patch_size(self) -> tuple[int, int]:
        """One lead, 0.3 s."""
        return 1, PATCH

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Leads and patches of each."""
        return len(self.signal.leads), self.signal.num_time_points // PATCH

    def visible_tokens(self, ecg: Tensor, visible: Tensor) -> Tensor:
        """As `PatchBackbone` says; all separators are seen by the patches, and left out.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        batch, columns, positions = len(ecg), self.patch_grid[1], self.pos_embedding[0]
        leads = torch.stack([*self.lead_embeddings]).unsqueeze(1)  # (lead, 1, dim)
        places = (leads + positions[1 : columns + 1]).flatten(0, 1)  # (patch, dim)
        separators = (leads + self.sep_embedding + positions[[0, -1]]).flatten(0, 1)  # (2 lead, dim)
        x = self.to_patch_embedding[1:](taken(self.patch_values(ecg), visible)) + places[visible]
        x = self.dropout(torch.cat([x, separators.expand(batch, -1, -1)], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, : visible.shape[1]])  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the patches of all leads, then the norm, (batch, dim)."""
        x = self.tokens(ecg)
        x = x.view(x.shape[0], len(LEADS_12), -1, x.shape[2])[:, :, 1:-1]  # without the separators
        return self.norm(x.mean(dim=(1, 2)))  # type: ignore[no-any-return]

    def layer_of(self, name: str) -> int:
        """0 for patches, positions, separators and leads, ``i + 1`` for block ``i``, ``num_layers`` for the norm."""
        return layer_of_block(name, self.num_layers)

    def own_name(self, published: str) -> str | None:
        """The names of the blocks are translated, the others are the same."""
        found = _PUBLISHED_BLOCK.fullmatch(published)
        if found is None or found[2] not in _BLOCK_PARTS:
            return super().own_name(published)
        return f"blocks.{found[1]}.{_BLOCK_PARTS[found[2]]}.{found[3]}"


@register(
    Card(
        name="st_mem_small",
        summary="ST-MEM (arXiv 2402.09450), ViT-S: as st_mem_base, 384 wide",
        repository="github.com/bakqui/ST-MEM",
        commit="69ec70246c01fe32b14dea810af812556c06eab0",
        code_licence="CC BY-NC 4.0, VUNO Inc., all rights reserved; no code of it is used here",
        weights="none published",
        weights_licence="none published",
        pretraining_data="none published: trained from its initialisation, or from a checkpoint of one's own",
        ptbxl_in_pretraining=False,
    )
)
class STMEMSmall(STMEM):
    """ST-MEM's small encoder, 21.3 million parameters."""

    def __init__(
        self,
        *,
        depth: int = 12,
        dim: int = 384,
        heads: int = 6,
        dropout: float = 0.0,
        num_time_points: int = MAX_PATCHES * PATCH,
    ) -> None:
        """As `STMEM`."""
        super().__init__(depth=depth, dim=dim, heads=heads, dropout=dropout, num_time_points=num_time_points)
