"""How long until something happens: `--help` against `import torch`, a fit's first step against plain Lightning's.

Each in a fresh process, in turn. The first step is that of fine-tuning (a probe computes features first): ViT at 100
Hz, batches of 32, behind Lightning's own check of two validation batches. The plain way is a script: `import
lightning.pytorch`, the same network, random tensors as data, `Trainer.fit`. Beside the seconds, those of the processor:
on a machine that others use they say more.

    ecg-lightning prepare --source PTBXL_100 --output vit.h5 --backbone vit
    python benchmarks/start.py --store vit.h5 --rounds 7
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PLAIN = """
import sys
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from ecg_lightning.backbones.vit import ViT
from first_step import FirstStep

class Plain(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = ViT(), torch.nn.Linear(192, 5)

    def loss(self, batch):
        logits = self.head(self.backbone(batch[0]))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, batch[1])

    def training_step(self, batch, index):
        return self.loss(batch)

    def validation_step(self, batch, index):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())

data = DataLoader(TensorDataset(torch.randn(64, 12, 1000), torch.rand(64, 5).round()), batch_size=32)
trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, callbacks=[FirstStep()],
                     enable_model_summary=False, enable_progress_bar=False)
trainer.fit(Plain(), data, data)
"""
FIRST_STEP = """
import os
from lightning.pytorch import Callback

class FirstStep(Callback):
    def on_train_batch_end(self, *arguments):
        os._exit(0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path, help="PTB-XL at 100 Hz, made by prepare --backbone vit")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first_step.py").write_text(FIRST_STEP)
        compare("import torch", ["-c", "import torch"], "--help", ["-m", "ecg_lightning", "--help"], arguments.rounds)
        fit = [
            *("-m", "ecg_lightning", "fit", "--config", "backbone/vit", "--config", "recipe/plain_fine_tuning"),
            *("--data.store", str(arguments.store.resolve()), "--data.task", "superdiagnostic"),
            *("--data.batch_size", "32", "--trainer.accelerator", "cpu"),
            *("--trainer.callbacks", '[{"class_path": "first_step.FirstStep"}]'),
        ]
        compare("plain Lightning, a step", ["-c", PLAIN], "fit, a step", fit, arguments.rounds, Path(folder))


def compare(
    alternative: str, theirs: list[str], own: str, ours: list[str], rounds: int, folder: Path | None = None
) -> None:
    """Both ways in turn, the first round (cold files) left out."""
    seconds: dict[str, list[tuple[float, float]]] = {alternative: [], own: []}
    for number in range(rounds + 1):
        for name, command in ((alternative, theirs), (own, ours)):
            run = [] if folder is None or name != own else ["--run", str(folder / f"run-{number}")]
            taken = cost(command + run, folder)
            if number:
                seconds[name].append(taken)
    middle = {name: [median(column) for column in zip(*times, strict=True)] for name, times in seconds.items()}
    for name, (wall, processor) in middle.items():
        print(f"{name:<24} {wall:6.2f} s, processor {processor:6.2f} s")
    ratios = [mine / theirs for mine, theirs in zip(middle[own], middle[alternative], strict=True)]
    print(f"{own} / {alternative}: {ratios[0]:.2f}, processor {ratios[1]:.2f}")


def cost(command: list[str], folder: Path | None) -> tuple[float, float]:
    """Seconds of a fresh process, and of the processor in it."""
    path = os.pathsep.join(filter(None, [str(folder) if folder else "", os.environ.get("PYTHONPATH", "")]))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
