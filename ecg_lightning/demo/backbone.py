"""The demo's backbone: a ViT pre-trained here, in half precision, with the card that says on what and how."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from ecg_lightning.errors import InputError

FILE, CARD = "backbone.safetensors", "backbone.md"
SIZES = ("--model.backbone.readout", "mean")
"""Flags with which the network is built: the mean over the patches; a class token has no loss of its own."""


def copy_backbone(folder: Path) -> Path:
    """Copies the shipped weights and their card into ``folder``; returns the weights.

    Raises:
        InputError: when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (FILE, CARD):
            with as_file(files("ecg_lightning.demo").joinpath(name)) as path:
                shutil.copyfile(path, folder / name)
    except OSError as error:
        raise InputError(
            f"the backbone cannot be copied into {folder} ({error}): make room, or name another --output"
        ) from error
    return folder / FILE
