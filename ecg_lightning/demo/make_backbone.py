"""Makes the demo's backbone: ``python -m ecg_lightning.demo.make_backbone FOLDER``, about 10 minutes of one core.

Masked auto-encoding of the shipped excerpt's folds 1-7, no labels read; then half precision, at most 6 MB. The same
versions of the packages on the same kind of processor give the same weights to the bit.
"""

import json
import shlex
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from ecg_lightning.cli import main
from ecg_lightning.demo.backbone import CARD, FILE, SIZES
from ecg_lightning.demo.excerpt import unpack_excerpt
from ecg_lightning.runs import file_sha256, whole_file

MAX_BYTES = 6_000_000
FLAGS = (
    *("--config", "data/excerpt", "--config", "backbone/vit", "--config", "pretrain/masked", *SIZES),
    *("--model.mask_ratio", "0.6", "--pretraining.epochs", "200", "--pretraining.probe_every", "50"),
    *("--trainer.accelerator", "cpu"),
)


def make_backbone(folder: Path, *more: str) -> int:
    """Pre-trains in ``folder`` with ``more`` flags and writes `FILE` and `CARD` there; exit code."""
    store, run = folder / "ptbxl_excerpt.h5", folder / "pretrained"
    source = unpack_excerpt(folder / "ptbxl_excerpt")
    torch.set_num_threads(1)  # sums in one order
    command = ["pretrain", *FLAGS, "--data.stores", str(store), "--run", str(run), *more]
    prepare = ["prepare", "--source", str(source), "--output", str(store), "--backbone", "vit"]
    for arguments in (prepare, command):
        if code := main(arguments):
            return code
    halve(run / "encoder.safetensors", folder / FILE)
    with whole_file(folder / CARD) as temporary:
        temporary.write_text(card(run, folder / FILE))
    return (folder / FILE).stat().st_size > MAX_BYTES


def halve(source: Path, output: Path) -> None:
    """Writes the weights of ``source`` in half precision, with the same metadata; `load_weights` widens them again."""
    with safe_open(source, "pt") as file:
        weights = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118 (no dict)
        metadata = file.metadata()
    with whole_file(output) as temporary:
        temporary.write_bytes(save(weights, metadata))


def card(run: Path, weights: Path) -> str:
    """The pre-training's own card, with the hash of the half-precision file and how that is made."""
    own = (run / "encoder.md").read_text().replace(file_sha256(run / "encoder.safetensors"), file_sha256(weights))
    command = shlex.join(["ecg-lightning", "pretrain", *FLAGS, "--data.stores", "ptbxl_excerpt.h5", "--run", "RUN"])
    packages = json.loads((run / "environment.json").read_text())["packages"]
    return (
        own.replace("encoder.safetensors", FILE)
        + "\n## How it was made\n\n`python -m ecg_lightning.demo.make_backbone FOLDER`, which is\n\n"
        f"```bash\n{command}\n```\n\nand then half precision, with torch {packages['torch']} and lightning "
        f"{packages['lightning']}. The records are PTB-XL's (CC BY 4.0, `CITATION-PTB-XL.txt`), the weights are "
        "Apache-2.0.\n"
    )


if __name__ == "__main__":
    sys.exit(make_backbone(Path(sys.argv[1]), *sys.argv[2:]))
