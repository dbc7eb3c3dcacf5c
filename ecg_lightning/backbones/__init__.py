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
from ecg_lightning.backbones.st_mem import STMEM, STMEMSmall
from ecg_lightning.backbones.vit import MTECGTi, ViT

__all__ = [
    "ECGJEPA",
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
    "LoadReport",
    "MTECGTi",
    "STMEMSmall",
    "ViT",
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
