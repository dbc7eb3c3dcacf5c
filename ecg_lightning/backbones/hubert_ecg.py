"""HuBERT-ECG, small, base and large: twelve leads strung together into one, read by a wav2vec 2.0 network.

Source: Edoar-do/HuBERT-ECG, code/hubert_ecg.py, hubert_ecg_classification.py and pretrain.py, commit
affe1f94d06d61a346fa7520be441af5642616b4 (CC BY-NC 4.0: none of it is used here); written anew from its equations.
Differs: see `wav2vec`; the ECG comes as (batch, lead, time) and is strung together inside; in evaluation the windows
are spread evenly and decimated each by itself, where the published scripts cut random ones behind the decimation.
"""

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor

from ecg_lightning.backbones.base import Card, Figures, Renames, register
from ecg_lightning.backbones.wav2vec import ConvFrontEnd, Wav2Vec
from ecg_lightning.chains import Chain, Crop, DecimateAcrossLeads, FirBandpass, Resample, ScaleToRange
from ecg_lightning.signals import SignalSpec, Windows

CHAIN: Chain = (FirBandpass(0.05, 47.0), Resample(500.0), ScaleToRange(), Crop(), DecimateAcrossLeads(5))
"""As code/utils.py and code/dataset.py: filtered and scaled over the whole record, cut, then strung and decimated."""

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")
_WRAPPERS = ("module.", "hubert_ecg.")


def _card(size: str, parameters: str, auroc: tuple[float, ...], *more: Figures) -> Card:
    return Card(
        name=f"hubert_ecg_{size}",
        summary=f"HuBERT-ECG {size}: masked prediction of clusters, 500 Hz records, 5 s, {parameters} parameters",
        repository="github.com/Edoar-do/HuBERT-ECG",
        commit="affe1f94d06d61a346fa7520be441af5642616b4",
        code_licence="CC BY-NC 4.0 (non-commercial); no code of it is used here",
        weights=f"huggingface.co Edoardo-BS/hubert-ecg-{size}: model.safetensors; "
        f"Edoardo-BS/HuBERT-ECG-SSL-Pretrained: hubert_ecg_{size}.pt. WARNING: "
        f"Edoardo-BS/HuBERT-ECG-SFT-CardioLearning-{size} was trained on PTB-XL's labels, never "
        "use it for PTB-XL scores",
        weights_licence="CC BY-NC 4.0 (non-commercial) according to the model cards",
        pretraining_data="9.1 million ECGs of four countries; whether PTB-XL, and its fold 10, are among them is not "
        "stated in the code, but likely: fine-tuning reads PTB-XL's files out of the pre-training folder",
        ptbxl_in_pretraining=None,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, auroc, strict=True)),
                protocol="fine-tuned, PTB-XL folds 1-8 / 9 / 10, maximum over 3 or 5 random 5 s crops; per-label means "
                "of the same files are up to 0.005 lower",
                source="the repository's data behind figure 2a (not measured here)",
            ),
            *more,
        ),
    )


class HuBERTECG(Wav2Vec):
    """HuBERT-ECG of any size; its authors fine-tune all but convolutions, positions and the norm behind them."""

    published_key = "model_state_dict"
    foreign_objects: ClassVar[tuple[str, ...]] = ("hubert_ecg", "transformers")
    unused_prefixes: ClassVar[tuple[str, ...]] = ("final_proj.", "label_embedding.", "masked_spec_embed", "classifier.")
    layer_0: ClassVar[tuple[str, ...]] = ("front_end", "positions", "norm")
    renames: ClassVar[Renames] = (
        (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front_end.convs.\1."),
        (r"feature_extractor\.conv_layers\.0\.layer_norm\.", r"front_end.norm."),
        (r"feature_projection\.layer_norm\.", r"projection_norm."),
        (r"feature_projection\.projection\.", r"projection."),
        (r"encoder\.pos_conv_embed\.conv\.(weight_g|parametrizations\.weight\.original0)$", r"positions.magnitude"),
        (r"encoder\.pos_conv_embed\.conv\.(weight_v|parametrizations\.weight\.original1)$", r"positions.direction"),
        (r"encoder\.pos_conv_embed\.conv\.bias$", r"positions.bias"),
        (r"encoder\.layer_norm\.", r"norm."),
        (r"encoder\.layers\.(\d+)\.attention\.(q|k|v|out)_proj\.", r"blocks.\1.attn.\2."),
        (r"encoder\.layers\.(\d+)\.layer_norm\.", r"blocks.\1.norm1."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.", r"blocks.\1.mlp.fc1."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.", r"blocks.\1.mlp.fc2."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"blocks.\1.norm2."),
    )

    def __init__(
        self, *, dim: int, depth: int, heads: int, conv_channels: int, dropout: float, record_rate: float
    ) -> None:
        """Sizes of the network.

        Args:
            dim: width of a token, a multiple of 16 and of ``heads``.
            depth: number of blocks.
            heads: attention heads.
            conv_channels: of the convolutions that read the string of leads.
            dropout: in the stem and in the blocks; 0 in the published fine-tuning.
            record_rate: of the source's records in Hz; the published weights were made with 500.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        windows = Windows(count=3, aggregate="max")
        signal = SignalSpec(record_rate, 500, chain=CHAIN, windows=windows)
        front_end = ConvFrontEnd(1, conv_channels, (10, 3, 3, 2, 2), (4, 2, 2, 2, 2))
        rates = {"dropout": dropout, "activation_dropout": dropout}
        super().__init__(signal, front_end, dim=dim, depth=depth, heads=heads, **rates)

    def channels(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> lead after lead, (batch, 1, lead x time)."""
        return ecg.flatten(1).unsqueeze(1)

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the 93 tokens, (batch, dim)."""
        return self.tokens(ecg).mean(dim=1)

    def wrappers(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of the fine-tuning class and of data-parallel training."""
        return _WRAPPERS

    def remark(self, names: Collection[str]) -> str:
        """A warning for fine-tuned files."""
        if not any(name.removeprefix("module.").startswith("hubert_ecg.") for name in names):
            return ""
        return (
            "this is a fine-tuned file: the published SFT-CardioLearning weights were trained on PTB-XL's labels, "
            "never use them for PTB-XL scores"
        )


_BENCHMARK = "arXiv 2509.25095 (second hand, not measured here)"
_BENCHMARK_PROTOCOL = "PTB-XL, filter and scaling at 100 Hz on the crop, layer-wise rates, mean over windows"


@register(_card("small", "30.2 M", (0.9016, 0.9222, 0.9140, 0.9103, 0.8416, 0.9406)))
class HuBERTECGSmall(HuBERTECG):
    """HuBERT-ECG small, 30.2 million parameters."""

    def __init__(
        self,
        *,
        dim: int = 512,
        depth: int = 8,
        heads: int = 8,
        conv_channels: int = 512,
        dropout: float = 0.0,
        record_rate: float = 500,
    ) -> None:
        """As `HuBERTECG`; the defaults are those of the published weights."""
        super().__init__(
            dim=dim, depth=depth, heads=heads, conv_channels=conv_channels, dropout=dropout, record_rate=record_rate
        )


@register(
    _card(
        "base",
        "92.8 M",
        (0.9026, 0.9216, 0.9206, 0.9137, 0.8551, 0.9527),
        *(
            Figures(
                metric="macro AUROC",
                values=dict(zip(("all", "subclass", "superclass"), auroc, strict=True)),
                protocol=f"{way}; {_BENCHMARK_PROTOCOL}",
                source=_BENCHMARK,
            )
            for way, auroc in (
                ("fine-tuned", (0.915, 0.918, 0.908)),
                ("frozen, attention head", (0.883, 0.903, 0.892)),
                ("linear probe", (0.867, 0.898, 0.877)),
            )
        ),
    )
)
class HuBERTECGBase(HuBERTECG):
    """HuBERT-ECG base, 92.8 million parameters."""

    def __init__(
        self,
        *,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        conv_channels: int = 512,
        dropout: float = 0.0,
        record_rate: float = 500,
    ) -> None:
        """As `HuBERTECG`; the defaults are those of the published weights."""
        super().__init__(
            dim=dim, depth=depth, heads=heads, conv_channels=conv_channels, dropout=dropout, record_rate=record_rate
        )


@register(_card("large", "187.6 M", (0.8958, 0.9105, 0.9226, 0.9026, 0.8247, 0.9347)))
class HuBERTECGLarge(HuBERTECG):
    """HuBERT-ECG large, 187.6 million parameters."""

    def __init__(
        self,
        *,
        dim: int = 960,
        depth: int = 16,
        heads: int = 12,
        conv_channels: int = 512,
        dropout: float = 0.0,
        record_rate: float = 500,
    ) -> None:
        """As `HuBERTECG`; the defaults are those of the published weights."""
        super().__init__(
            dim=dim, depth=depth, heads=heads, conv_channels=conv_channels, dropout=dropout, record_rate=record_rate
        )
