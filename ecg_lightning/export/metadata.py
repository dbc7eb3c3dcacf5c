"""All that a program needs to feed an exported network and to read its answer."""

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ecg_lightning.backbones.provenance import TRAINED_ON
from ecg_lightning.chains import chain_to_json
from ecg_lightning.data.plan import asked_length
from ecg_lightning.errors import InputError
from ecg_lightning.export.network import split_steps

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun

log = logging.getLogger(__name__)
_CHOSEN = {"thresholds": ("thresholds.json", "thresholds"), "temperature": ("calibration.json", "temperature")}
"""What `evaluate` chose on validation: name in the metadata, the run's file and the key in it."""


def metadata_of(trained: "TrainedRun") -> dict[str, str]:
    """Entries of text or JSON, in the order in which a program needs them; README's example reads them.

    ``leads``, ``unit``, ``record_rate_hz``, ``longest_record_seconds``: what a record is made first (null: not known),
    ``other_rates`` by what other rates are resampled.
    ``steps_before_window``: what runs over it then. ``window_points``, ``window_rate_hz``, ``windows``: how windows are
    cut from that, and their probabilities joined. ``steps_on_window``: what runs over a window before the network; the
    ``steps_in_network`` are inside, and named for the record. ``thresholds`` and ``temperature``, where `evaluate` has
    chosen them, are for the probabilities that the network gives.
    """
    signal = trained.signal
    outside, inside = split_steps(signal.batch_chain)
    entries = {
        **trained.origin(),
        "run": trained.run.path.resolve().name,  # a file that is handed on does not tell of folders
        "backbone": trained.classifier.backbone.flag_name(),
        "label_names": list(trained.label_names),
        TRAINED_ON: [one.to_json() for one in trained.trained_on],
        "leads": list(signal.leads),
        "unit": "mV",
        "record_rate_hz": signal.record_rate,
        "shortest_record_seconds": asked_length(signal, None) / signal.record_rate,
        "longest_record_seconds": trained.run.record_seconds,
        "other_rates": "scipy.signal.resample_poly, padtype='line'",
        "steps_before_window": json.loads(chain_to_json(signal.stored_chain)),
        "window_rate_hz": signal.stored_rate,
        "window_points": signal.window_points,
        "windows": asdict(signal.windows),
        "steps_on_window": json.loads(chain_to_json(outside)),
        "steps_in_network": json.loads(chain_to_json(inside)),
        **chosen_on_validation(trained),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}


def chosen_on_validation(trained: "TrainedRun") -> dict[str, Any]:
    """Thresholds and temperature that `evaluate` left in the run for this checkpoint; of another they are left out.

    Raises:
        InputError: for a file of them that cannot be read.
    """
    found: dict[str, Any] = {}
    for name, (file, key) in _CHOSEN.items():
        path = trained.run.path / file
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text())
            value, digest = content[key], content["checkpoint_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error!r}): make it anew with `ecg-lightning evaluate`") from None
        if digest == trained.checkpoint_sha256:
            found[name] = value
        else:
            log.warning("%s is of another checkpoint: left out of the metadata", path)
    return found
