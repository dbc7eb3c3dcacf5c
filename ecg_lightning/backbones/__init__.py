"""Published ECG networks behind one promise."""

from ecg_lightning.backbones.base import (
    Backbone,
    Card,
    Figures,
    backbone_card,
    backbone_class,
    backbone_signal,
    create_backbone,
    list_backbones,
    meta_backbone,
    register,
)
from ecg_lightning.backbones.checkpoints import LoadReport, load_weights, weights_digest
from ecg_lightning.backbones.chimera import Chimera
from ecg_lightning.backbones.ecg_fm import ECGFMBase
from ecg_lightning.backbones.ecg_jepa import ECGJEPA
from ecg_lightning.backbones.ecgfounder import ECGFounder, ECGFounder1Lead
from ecg_lightning.backbones.hubert_ecg import HuBERTECGBase, HuBERTECGLarge, HuBERTECGSmall
from ecg_lightning.backbones.inception1d import Inception1d
from ecg_lightning.backbones.multiresnet import MultiResNet
from ecg_lightning.backbones.patches import PatchBackbone
from ecg_lightning.backbones.s4 import S4
from ecg_lightning.backbones.st_mem import STMEM, STMEMSmall
from ecg_lightning.backbones.vit import MTECGTi, ViT
from ecg_lightning.backbones.xresnet1d import XResNet1d101

__all__ = [
    "ECGJEPA",
    "S4",
    "STMEM",
    "Backbone",
    "Card",
    "Chimera",
    "ECGFMBase",
    "ECGFounder",
    "ECGFounder1Lead",
    "Figures",
    "HuBERTECGBase",
    "HuBERTECGLarge",
    "HuBERTECGSmall",
    "Inception1d",
    "LoadReport",
    "MTECGTi",
    "MultiResNet",
    "PatchBackbone",
    "STMEMSmall",
    "ViT",
    "XResNet1d101",
    "backbone_card",
    "backbone_class",
    "backbone_signal",
    "create_backbone",
    "list_backbones",
    "load_weights",
    "meta_backbone",
    "register",
    "weights_digest",
]
