"""ECG-JEPA of Kim: a transformer whose tokens see their own lead and their own moment alone (cross-pattern attention).

Source: sehunfromdaegu/ECG_JEPA, ecg_jepa.py and models.py, commit d937ad2c2c8a1e22856ce7e4a23a30f84a71217c (MIT); paper
Kim 2024 (arXiv 2410.08559). Not the ECG-JEPA of Weimann and Conrad (arXiv 2410.13867). Written anew from a description,
equal to its outputs on the same weights.
Differs: blocks have the names of this package, `load_weights` translates; one chain in both phases, where the published
code filters in fine-tuning alone (``filtered``); no RandAugment in training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone, Card, Figures, register
from ecg_lightning.backbones.transformer import Block, check_sizes, layer_of_block
from ecg_lightning.chains import Chain, Crop, Resample, WindowFilter
from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec, lead_indices

LEADS_8 = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The independent ones; the others are sums of I and II."""
PATCH = 50
"""Time points of a token: 0.2 s at 250 Hz."""
NUM_PATCHES = 50
"""Of one lead."""

CHAIN: Chain = (Resample(250), Crop())
"""As pre-training and linear evaluation have it (ecg_data.py): mV as they are, so amplitude matters."""
FILTERED_CHAIN: Chain = (*CHAIN, WindowFilter("highpass", 0.67, 250), WindowFilter("lowpass", 40.0, 250))
"""As downstream_tasks/finetuning.py has it, in training and in evaluation."""

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")
_BENCHMARK = "ecg-fm-benchmarking, Confidence_Interval.xlsx (not measured here)"
_PROTOCOL = "PTB-XL, folds 1-8 / 9 / 10, 10 s at 250 Hz, one model per task"
_PAPER = "arXiv 2410.08559 v5 (second hand, not measured here)"
_PAPER_PROTOCOL = "PTB-XL, records of a superclass, folds 1-9 / 10, no validation fold"


@register(
    Card(
        name="ecg_jepa_base",
        summary="ECG-JEPA (Kim, arXiv 2410.08559): ViT-B over patches of one lead x 0.2 s, 8 leads, 250 Hz, 10 s",
        repository="github.com/sehunfromdaegu/ECG_JEPA",
        commit="d937ad2c2c8a1e22856ce7e4a23a30f84a71217c",
        code_licence="MIT",
        weights="linked from the readme, Google Drive: multi-block masks 1gMOT4xjQQg0GZkY1iE6NuDzua4ALw00l "
        "(sha256 according to a third party 61334869f905a7d6de32bc573c60024eaf6efba7c35c0e45fc2ea7d52b6ff66e), random "
        "masks 1mh-XL0XOvvhFbhvuZ9c2KnTHa9B4F3Wx",
        weights_licence="none of their own stated; the repository that links them is MIT",
        pretraining_data="Shaoxing (Chapman and Ningbo, 43,240 ECGs) and CODE-15 (130,900); PTB-XL downstream alone by "
        "the official script (a benchmark's comment says otherwise)",
        ptbxl_in_pretraining=False,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.940, 0.946, 0.935, 0.921, 0.912, 0.956), strict=True)),
                protocol=f"fine-tuned; {_PROTOCOL}",
                source=_BENCHMARK,
            ),
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.928, 0.925, 0.916, 0.911, 0.908, 0.969), strict=True)),
                protocol=f"linear probe; {_PROTOCOL}",
                source=f"{_BENCHMARK}, sheet Linear",
            ),
            Figures(
                metric="macro AUROC",
                values={"superclass": 0.931},
                protocol=f"fine-tuned, random masks, best of the test epochs; {_PAPER_PROTOCOL}",
                source=_PAPER,
            ),
            Figures(
                metric="macro AUROC",
                values={"superclass": 0.912},
                protocol=f"linear probe, multi-block masks, last epoch; {_PAPER_PROTOCOL}",
                source=_PAPER,
            ),
        ),
    )
)
class ECGJEPA(Backbone):
    """ECG-JEPA's context encoder: 85.1 million parameters and a fixed table of positions."""

    published_key = "encoder"
    pos_embed: Tensor
    rows: Tensor
    mask: Tensor

    def __init__(
        self,
        *,
        depth: int = 12,
        dim: int = 768,
        heads: int = 16,
        leads: Sequence[str] = LEADS_8,
        filtered: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Sizes of the network and of its input; the defaults are those of the published weights.

        Args:
            depth: number of blocks.
            dim: width of a token, a multiple of ``heads`` and of 4.
            heads: attention heads.
            leads: those of the input, some of the eight; the published weights fit any of them.
            filtered: 0.67 to 40 Hz, as published for fine-tuning; else mV as they are, as in pre-training.
            dropout: behind the attention's projection and the layers of the MLPs.

        Raises:
            InputError: naming all sizes that do not fit, or leads that are not among the eight.
        """
        super().__init__()
        check_sizes(
            {"depth": depth, "dim": dim, "heads": heads, "number of leads": len(leads)},
            [("dim", dim, "heads", heads), ("dim", dim, "sines and cosines of two axes", 4)],
        )
        try:
            places = torch.tensor(lead_indices(leads, LEADS_8))
        except ValueError as error:
            raise InputError(f"leads are {', '.join(leads)}: {error}") from None
        self.signal = SignalSpec(
            500, NUM_PATCHES * PATCH, leads=tuple(leads), chain=FILTERED_CHAIN if filtered else CHAIN
        )
        self.feature_dim, self.num_layers = dim, depth + 1
        self.patch_embed = nn.Linear(PATCH, dim)
        self.register_buffer("pos_embed", positions(dim))
        rows = torch.arange(len(LEADS_8) * NUM_PATCHES).view(-1, NUM_PATCHES)[places].flatten()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("mask", cross_pattern(len(leads)), persistent=False)
        self.blocks = nn.ModuleList(
            Block(index, dim, heads, mlp_ratio=4, eps=1e-5, dropout=dropout, qkv_bias=False) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self._initialise()

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), normed, lead by lead; 8 x 50 tokens from 8 leads.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        x = self.patch_embed(ecg.reshape(*ecg.shape[:2], NUM_PATCHES, PATCH)).flatten(1, 2)
        for block in self.blocks:
            x = block(x + self.pos_embed[self.rows], self.mask)  # each block anew, into the residual stream
        return self.norm(x)  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over all tokens, (batch, dim)."""
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """0 for the patches, ``i + 1`` for block ``i``, ``num_layers`` for the norm."""
        return layer_of_block(name, self.num_layers)

    def own_name(self, published: str) -> str | None:
        """Blocks lie one level deeper in the published file, and the patches' layer has another name."""
        name = published.removeprefix("encoder_blocks.")
        return name.replace("W_P.", "patch_embed.") if name.startswith("W_P.") else name

    def _initialise(self) -> None:
        """Normal of deviation 0.02 for linear layers; those that end a branch of block k, 1 first, over sqrt(2 k)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                assert isinstance(block, Block)
                block.attn.proj.weight /= (2 * number) ** 0.5
                block.mlp.fc2.weight /= (2 * number) ** 0.5


def positions(dim: int) -> Tensor:
    """(lead x patch, dim): sines, then cosines, of the patch in the first half of the columns, of the lead behind."""
    patch = _waves(torch.arange(NUM_PATCHES), dim // 2).repeat(len(LEADS_8), 1)
    lead = _waves(torch.arange(len(LEADS_8)), dim // 2).repeat_interleave(NUM_PATCHES, dim=0)
    return torch.cat([patch, lead], dim=1)


def _waves(place: Tensor, width: int) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(width // 2) / (width // 2))
    angles = place.unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def cross_pattern(num_leads: int) -> Tensor:
    """(token, token) bool: whether a token sees another, being of the same lead or of the same patch."""
    lead = torch.arange(num_leads).repeat_interleave(NUM_PATCHES)
    patch = torch.arange(NUM_PATCHES).repeat(num_leads)
    return (lead.unsqueeze(1) == lead) | (patch.unsqueeze(1) == patch)
