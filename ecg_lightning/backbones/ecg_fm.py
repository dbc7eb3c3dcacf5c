"""ECG-FM: a wav2vec 2.0 network over twelve leads as channels, 500 Hz, 5 s.

Source: Jwoo5/fairseq-signals, models/ecg_transformer.py, models/transformer.py, models/wav2vec2/wav2vec2_cmsc.py,
models/classification/ecg_transformer_classifier.py, commit 6b9e1375bbe6bc2e55ff4d9b95eabe8eee3adec7 (MIT; project
bowang-lab/ECG-FM); written anew from a description, equal to its outputs on the same weights.
Differs: see `wav2vec`; in training windows are cut anywhere, where the published code has two fixed halves of a record.
"""

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor

from ecg_lightning.backbones.base import Card, Figures, Renames, register
from ecg_lightning.backbones.wav2vec import ConvFrontEnd, Wav2Vec
from ecg_lightning.chains import Chain, Crop, ResampleLinearly, ZScoreRecord
from ecg_lightning.signals import LEADS_12, SignalSpec, Windows

CHAIN: Chain = (ResampleLinearly(500.0), ZScoreRecord(), Crop())
"""As scripts/preprocess/ecg/preprocess.py; no filter."""

NUM_TIME_POINTS = 2500
WRAPPER = "encoder."


@register(
    Card(
        name="ecg_fm_base",
        summary="ECG-FM base: wav2vec 2.0, CMSC and random lead masking, 500 Hz, 5 s, 90.4 M parameters",
        repository="github.com/Jwoo5/fairseq-signals (project bowang-lab/ECG-FM)",
        commit="6b9e1375bbe6bc2e55ff4d9b95eabe8eee3adec7",
        code_licence="MIT",
        weights="huggingface.co wanglab/ecg-fm: mimic_iv_ecg_physionet_pretrained.pt, mimic_iv_ecg_finetuned.pt",
        weights_licence="MIT according to third parties; the model card was not read",
        pretraining_data="MIMIC-IV-ECG 1.0 and PhysioNet 2021 1.0.3 (CPSC, CPSC-extra, Georgia, PTB-XL, "
        "Chapman-Shaoxing, Ningbo). WARNING: PTB-XL's waveforms were in it, split at random, so fold 10 was seen in "
        "part, without labels",
        ptbxl_in_pretraining=True,
        published=tuple(
            Figures(
                metric="macro AUROC",
                values=dict(zip(("all", "subclass", "superclass"), auroc, strict=True)),
                protocol=f"{way}; PTB-XL, layer-wise rates, best validation macro AUROC, mean over windows",
                source="arXiv 2509.25095 (second hand, not measured here)",
            )
            for way, auroc in (
                ("fine-tuned", (0.927, 0.932, 0.916)),
                ("frozen, attention head", (0.884, 0.912, 0.877)),
                ("linear probe", (0.841, 0.866, 0.873)),
            )
        ),
    )
)
class ECGFMBase(Wav2Vec):
    """ECG-FM base, 90.4 million parameters; its authors fine-tune all but the convolutions of the front end."""

    published_key = "model"
    # Files of the present trainer hold plain data; older ones a DictConfig and what that consists of.
    foreign_objects: ClassVar[tuple[str, ...]] = (
        *("omegaconf", "fairseq_signals", "fairseq", "typing", "collections.defaultdict"),
        *(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "str", "int", "float", "bool")),
    )
    unused_prefixes: ClassVar[tuple[str, ...]] = ("proj.", "mask_emb", "quantizer.", "project_q.", "final_proj.")
    layer_0: ClassVar[tuple[str, ...]] = ("front_end",)
    renames: ClassVar[Renames] = (
        (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"front_end.convs.\1."),
        (r"feature_extractor\.conv_layers\.0\.2\.", r"front_end.norm."),
        (r"layer_norm\.", r"projection_norm."),
        (r"post_extract_proj\.", r"projection."),
        (r"conv_pos\.pos_conv\.0\.(weight_g|parametrizations\.weight\.original0)$", r"positions.magnitude"),
        (r"conv_pos\.pos_conv\.0\.(weight_v|parametrizations\.weight\.original1)$", r"positions.direction"),
        (r"conv_pos\.pos_conv\.0\.bias$", r"positions.bias"),
        (r"encoder\.layer_norm\.", r"norm."),
        (r"encoder\.layers\.(\d+)\.self_attn\.(q|k|v|out)_proj\.", r"blocks.\1.attn.\2."),
        (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"blocks.\1.norm1."),
        (r"encoder\.layers\.(\d+)\.(fc1|fc2)\.", r"blocks.\1.mlp.\2."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"blocks.\1.norm2."),
    )

    def __init__(
        self,
        *,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        conv_channels: int = 256,
        dropout: float = 0.0,
        activation_dropout: float = 0.0,
        record_rate: float = 500,
    ) -> None:
        """Sizes of the network; the defaults are those of the published weights.

        Args:
            dim: width of a token, a multiple of 16 and of ``heads``.
            depth: number of blocks.
            heads: attention heads.
            conv_channels: of the convolutions that read the leads.
            dropout: in the stem and in the blocks; 0 in the published fine-tuning.
            activation_dropout: inside the MLPs; 0.1 in the published fine-tuning.
            record_rate: of the source's records in Hz; the published weights were made with 500.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        windows = Windows(stride=NUM_TIME_POINTS)
        signal = SignalSpec(record_rate, NUM_TIME_POINTS, chain=CHAIN, windows=windows)
        front_end = ConvFrontEnd(len(LEADS_12), conv_channels, (2,) * 4, (2,) * 4)
        rates = {"dropout": dropout, "activation_dropout": activation_dropout}
        super().__init__(signal, front_end, dim=dim, depth=depth, heads=heads, **rates)

    def channels(self, ecg: Tensor) -> Tensor:
        """The leads are the channels."""
        return ecg

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the 156 tokens, entries of exactly 0 not counted, (batch, dim)."""
        tokens = self.tokens(ecg)
        return tokens.sum(dim=1) / (tokens != 0).sum(dim=1).clamp(min=1)

    def wrappers(self, names: Collection[str]) -> tuple[str, ...]:
        """That of the fine-tuning class; unwrapped names start with ``encoder.`` as well, but for the front end's."""
        return (WRAPPER,) if any(name.startswith(f"{WRAPPER}feature_extractor.") for name in names) else ()

    def remark(self, names: Collection[str]) -> str:
        """A warning for the published files."""
        if not any(name.removeprefix(WRAPPER).startswith("feature_extractor.") for name in names):
            return ""
        return "PTB-XL's waveforms, fold 10 in part, were in the published pre-training: scores on it are flattered"
