"""Whether a run's checkpoints will fit on its disk: said before days of training, not at the end of an epoch."""

import errno
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.errors import InputError, StoppedError
from ecg_lightning.frozen_backbone import FILE
from ecg_lightning.phases import FineTune, Probe
from ecg_lightning.runs import BEST, LAST, RunFolder

log = logging.getLogger(__name__)
COMFORT = 1.25
"""Below so many times the need, a warning: others write to the disk as well."""
ADAM_MOMENTS = 2
BESIDE = 400
"""Bytes that a checkpoint takes for a tensor beside its values: 250 measured, and as much again for AdamW's count."""


class Need(NamedTuple):
    """Bytes of each file that a run will hold at the same time."""

    files: dict[str, int]

    @property
    def total(self) -> int:
        """Of all of them."""
        return sum(self.files.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {_size(size)}" for name, size in self.files.items())


def need_of(classifier: ECGClassifier, probe: Probe, fine_tune: FineTune) -> Need:
    """Bytes of the checkpoints of both phases, at the moment when most of them are there.

    In the probe they hold head and moments, and the frozen backbone lies beside them once; in fine-tuning all weights,
    and two moments of each that is trained. `last.ckpt` may be a file of its own, and the next one is written beside
    it before it takes its place.
    """
    head, backbone = _bytes(classifier.head.state_dict().values()), _bytes(classifier.backbone.state_dict().values())
    weights = _bytes(classifier.state_dict().values())
    trained = head + _bytes(_trained(classifier.backbone, fine_tune.freeze_layers))
    of_probe = (weights - backbone) + ADAM_MOMENTS * head + head  # the best head is kept for the switch
    of_fine_tuning = weights + ADAM_MOMENTS * trained
    files: dict[str, int] = {}
    if probe.epochs:
        files |= {BEST["probe"]: of_probe, FILE: backbone}
    if fine_tune.epochs:
        files[BEST["fine_tune"]] = of_fine_tuning
    largest = of_fine_tuning if fine_tune.epochs else of_probe
    return Need({**files, LAST: largest, "the next one, until it takes its place": largest})


def check_space(run: RunFolder, need: Need) -> None:
    """Holds the need against the free space of the folder's disk, what the run has written already aside.

    Raises:
        InputError: when the checkpoints cannot fit.
    """
    free = shutil.disk_usage(run.path).free
    left = max(0, need.total - _written(run.checkpoints))
    if left > free:
        raise InputError(
            f"--run {run.path} needs {_size(left)} for its checkpoints, {_size(free)} are free on its disk ({need}): "
            "free some space there, or choose a folder on another disk"
        )
    if left * COMFORT > free:
        log.warning(
            "%s needs %s for its checkpoints (%s), and only %s are free on its disk: when it is full the run ends, and "
            "can be gone on with", run.path, _size(left), need, _size(free),
        )  # fmt: skip


def is_out_of_space(error: BaseException) -> bool:
    """Whether it was space that a write lacked: of the disk, of a quota, of a limit on files."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def out_of_space(error: BaseException, folder: Path) -> StoppedError:
    """The message: what happened, and how much space there is: a full disk has many names."""
    reason = " ".join(str(error).split())[:200]
    return StoppedError(
        f"{folder} cannot be written to ({reason}); {_size(shutil.disk_usage(folder).free)} are free there: make space"
    )


def _trained(backbone: nn.Module, frozen_layers: int) -> Iterable[Tensor]:
    return [p for name, p in backbone.named_parameters() if backbone.layer_of(name) >= frozen_layers]  # type: ignore[operator]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() + BESIDE for tensor in tensors)


def _written(folder: Path) -> int:
    files = {(file.st_dev, file.st_ino): file.st_size for file in map(Path.stat, folder.glob("*.*"))}
    return sum(files.values())


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.2f} MB"
