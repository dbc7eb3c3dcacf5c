"""A trained run, ready to be asked: its network by config and checkpoint alone, without the store it learnt from."""

import logging
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

import ecg_lightning
from ecg_lightning.backbones import Backbone
from ecg_lightning.backbones.provenance import Pretraining, pretraining_of
from ecg_lightning.chains import run_batch_chain
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.conversion import through_chain
from ecg_lightning.data.plan import asked_length, signal_to_store
from ecg_lightning.data.reading import Reading
from ecg_lightning.errors import InputError, UsageError, joined
from ecg_lightning.frozen_backbone import read_checkpoint
from ecg_lightning.own_code import refuse_code_of
from ecg_lightning.runs import NO_DEVICE, RunFolder, existing_run, file_sha256
from ecg_lightning.signals import SignalSpec
from ecg_lightning.yaml_files import read_mapping

if TYPE_CHECKING:
    from ecg_lightning.data.formats import Layout

log = logging.getLogger(__name__)


class TrainedRun:
    """The network of a run with one checkpoint, in evaluation mode and float32; `load_run` makes it.

    Attributes:
        run: the folder.
        checkpoint: its file.
        checkpoint_sha256: hash of the file.
        classifier: backbone and head.
        label_names: in the order of the network's outputs.
        task: the task that the run was trained on.
        stores: of its records, which may be gone.
        post_training: the phases, as its config has them.
        trained_on: what its weights have seen, as the checkpoint says.
        signal: what the backbone takes.
        device: where it computes.
    """

    def __init__(self, run: RunFolder, checkpoint: Path, device: torch.device) -> None:
        config = _config_of(run)
        self._model: dict[str, Any] = config["model"]
        self.run, self.checkpoint, self.device = run, checkpoint, device
        self.classifier = load_classifier(self._model, checkpoint).to(device)
        self.stores: str | list[str] = config["data"]["store"]
        self.post_training: dict[str, Any] = config["post_training"]
        self.checkpoint_sha256 = file_sha256(checkpoint)
        self.label_names = self.classifier.label_names
        self.task: str = config["data"]["task"]
        self.trained_on: tuple[Pretraining, ...] = pretraining_of(checkpoint)
        self.signal: SignalSpec = self.classifier.backbone.signal

    def predict(
        self, ecg: NDArray[Any], *, sampling_rate: float, leads: Sequence[str] | str, unit: str = "mV"
    ) -> dict[str, Any]:
        """Probabilities of each label for one ECG, or for several of one length.

        The array goes the way of `ecg-lightning predict`: leads by name, III and aVR, aVL, aVF derived from I and II
        where they are missing, resampled to the rate the network's records had, filtered as the backbone's chain says,
        cut into windows whose probabilities are joined. What is doubtful about it is warned of.

        Args:
            ecg: (lead, time), or (record, lead, time).
            sampling_rate: Hz.
            leads: the names of the array's leads, in order: ``["I", "II", "V1"]`` or ``"I,II,V1"``.
            unit: of the values: mV, uV or V.

        Returns:
            A mapping from label name to probability: a number for (lead, time), an array (record,) for (record, lead,
            time). `numpy.column_stack` or `pandas.DataFrame` make a table of it.

        Raises:
            InputError: for another shape, missing values, records that are too short, leads that are missing.

        Example:
            >>> import ecg_lightning
            >>> run = ecg_lightning.load_run("RUN")  # doctest: +SKIP
            >>> run.predict(ecg, sampling_rate=500, leads="I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6")  # doctest: +SKIP
            {'AFIB': 0.0123, 'NORM': 0.9312}
        """
        from ecg_lightning.data.any_record import fitted
        from ecg_lightning.data.formats import Layout
        from ecg_lightning.data.formats.array_recordings import array_recordings

        names = tuple(leads.split(",") if isinstance(leads, str) else leads)
        layout = Layout(float(sampling_rate), tuple(name.strip() for name in names), unit)
        reading = self.reading(layout)
        records = []
        for name, recording in array_recordings(ecg, layout):
            found = fitted(name, recording, reading.stored, reading.record_points, reading.least)
            if found.doubts:
                warnings.warn(f"{name}: {'; '.join(found.doubts)}", stacklevel=2)
            records.append(through_chain(found.ecg, reading.stored))
        probabilities = self.probabilities(records)
        columns = probabilities[0] if np.ndim(ecg) == 2 else probabilities.T
        return dict(zip(self.label_names, columns, strict=True))

    @property
    def shortest_seconds(self) -> float:
        """Length of the shortest record that can be predicted."""
        return asked_length(self.signal, None) / self.signal.record_rate

    def reading(self, layout: "Layout", seconds: float | None = None) -> Reading:
        """How records are read for this network: as the run's own were, at most as long as those, or as ``seconds``.

        Raises:
            UsageError: for less than the backbone takes, and where nothing says how long the run's records were.
        """
        least = asked_length(self.signal, None)
        seconds = self.run.record_seconds if seconds is None else seconds
        if seconds is None:
            raise UsageError(
                f"{self.run.environment} does not say how long the run's records were: give --seconds 10, or what "
                "it was"
            )
        record_points = asked_length(self.signal, seconds)
        return Reading(signal_to_store(self.signal, record_points), record_points, least, layout)

    def with_windows(self, count: int | None) -> "TrainedRun":
        """Itself, with ``count`` windows spread evenly over a record in place of those of the backbone's spec.

        Raises:
            UsageError: for less than one.
        """
        if count is not None:
            if count < 1:
                raise UsageError(f"--windows is {count}, it must be 1 or more, or left out")
            self.signal = replace(self.signal, windows=replace(self.signal.windows, count=count, stride=None))
        return self

    def probabilities(self, records: Sequence[NDArray[np.float32]], batch_size: int = 64) -> NDArray[np.float32]:
        """Probabilities (record, label) of ``records``, each (lead, time) in mV behind the steps before the crop.

        At most ``batch_size`` windows are computed at once, whichever records they are of.
        """
        windows = [self.windows(record) for record in records]
        flat = torch.from_numpy(np.concatenate(windows))
        logits = torch.cat([self._logits(part) for part in torch.split(flat, batch_size)])
        per_record = torch.split(logits, [len(each) for each in windows])
        rows = [self.classifier.record_probabilities(each.unsqueeze(0)) for each in per_record]
        return torch.cat(rows).numpy()

    def windows(self, record: NDArray[np.float32]) -> NDArray[np.float32]:
        """The windows (window, lead, time) of a record in evaluation."""
        width = self.signal.window_points
        starts = self.signal.windows.evaluation_starts(record.shape[1], width)
        return np.stack([record[:, start : start + width] for start in starts])

    @torch.inference_mode()
    def _logits(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (window, label), on the CPU."""
        ecg = run_batch_chain(self.signal.batch_chain, windows.to(self.device))
        return self.classifier(ecg).float().cpu()  # type: ignore[no-any-return]

    def rebuilt(self, state: dict[str, torch.Tensor]) -> "TrainedRun":
        """The same run with a network built anew, of the weights ``state`` of its backbone and head."""
        other = copy(self)
        other.classifier = new_classifier(self._model, self.label_names)
        missing, unexpected = other.classifier.load_state_dict(state, strict=False)
        assert not unexpected
        assert set(missing) <= {"pos_weight"}  # of the loss alone
        return other

    def origin(self) -> dict[str, Any]:
        """Where predictions come from: what every output says of itself."""
        return {
            "run": str(self.run.path.resolve()),
            "task": self.task,
            "checkpoint": self.checkpoint.name,
            "checkpoint_sha256": self.checkpoint_sha256,
            "ecg_lightning": ecg_lightning.__version__,
            "note": NO_DEVICE,
        }


def load_run(path: str | Path, *, checkpoint: str | None = None, device: str = "auto") -> TrainedRun:
    """A run that `ecg-lightning fit` trained, to be asked for predictions; needs no store.

    Of a run from somebody else: its checkpoint is read without running code; of its config only the backbone is built,
    whose ``class_path`` may name a class of your own, which is imported from where Python finds it, never from the run
    folder. `test`, `validate` and `fit --resume` build all that the config names: read it first.

    Args:
        path: the run folder.
        checkpoint: by path, or by its name in the run (``last``); the best of the last phase if left out.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: for a folder without a run, a checkpoint or device that is not there.
        InputError: for a damaged checkpoint, or one of another network.
    """
    run = existing_run(path)
    chosen = run.readable_checkpoint(checkpoint)
    if run.state != "complete":
        log.warning(
            "%s is not complete: what follows is of %s; go on with: ecg-lightning fit --run %s --resume auto",
            run.path, chosen.name, run.path,
        )  # fmt: skip
    return TrainedRun(run, chosen, checked_device(device))


def _config_of(run: RunFolder) -> dict[str, Any]:
    """The run's config, with the sections that are read here.

    Raises:
        InputError: for a file that is not what `fit` wrote.
    """
    rule = "put back the file that `fit` wrote"
    config = read_mapping(run.config, rule)
    sections = {"model": ("backbone",), "data": ("store", "task"), "post_training": ()}
    for section, keys in sections.items():
        found = config.get(section)
        if missing := [key for key in keys if not isinstance(found, dict) or key not in found]:
            raise InputError(f"{run.config} lacks {', '.join(f'{section}.{key}' for key in missing)}: {rule}")
    if not isinstance(config["model"]["backbone"], dict) or not isinstance(config.get("post_training"), dict):
        raise InputError(f"{run.config}: model.backbone and post_training must hold keys: {rule}")
    refuse_code_of(run.path, config)
    return config


def load_classifier(model: dict[str, Any], checkpoint: Path) -> ECGClassifier:
    """The classifier of a run's config, section ``model``, with the weights of ``checkpoint``: evaluation, float32.

    Raises:
        InputError: when it is another network's, a backbone of one's own that cannot be imported, or its checkpoint
            names a frozen backbone that is not there.
    """
    content = read_checkpoint(checkpoint)
    if missing := [key for key in ("label_names", "state_dict") if key not in content]:
        raise InputError(f"{checkpoint} lacks {' and '.join(missing)}: it is no checkpoint of this package's `fit`")
    classifier = new_classifier(model, content["label_names"])
    try:
        classifier.on_load_checkpoint(content)
    except InputError as error:
        raise InputError(f"{checkpoint} does not go with the config.yaml of its run: {error}") from None
    classifier.load_state_dict(content["state_dict"])
    return classifier.float()  # of a run in double precision as well


def new_classifier(model: dict[str, Any], label_names: Sequence[str]) -> ECGClassifier:
    """The classifier of a run's config, section ``model``, in evaluation mode, its weights to be replaced."""
    with torch.random.fork_rng(devices=[]):  # the caller's draws stay its own
        classifier = ECGClassifier(_backbone(model["backbone"]), label_names)
    return classifier.eval().requires_grad_(False)


def _backbone(config: dict[str, Any]) -> Backbone:
    """The backbone as `fit` builds it: its arguments become the types of its signature."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"[\s\S]*deprecated in v4")  # the new name is younger than 4.40
            built = parser.instantiate_classes(parser.parse_object({"backbone": config}))
    except Exception as error:  # jsonargparse raises several types, a constructor any
        reason = " ".join(str(error).split())
        raise InputError(
            f"the run's backbone {config.get('class_path')} cannot be built ({reason}): run the command in the folder, "
            "and with the package version, that the run was trained with"
        ) from error
    backbone = built.backbone
    assert isinstance(backbone, Backbone)
    return backbone


def checked_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        UsageError: when there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = joined(str(error).strip().splitlines(), limit=1)
        raise UsageError(
            f"--device {name} cannot be used ({reason}): leave it out, or give cpu, cuda, cuda:1"
        ) from None
    return device
