"""The model card beside an exported file: what it is, what it takes and says, how it was trained and judged."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_lightning.backbones import backbone_card
from ecg_lightning.export.network import split_steps
from ecg_lightning.runs import NO_DEVICE, file_sha256

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun

_ONNX = """\
```python
import numpy, onnxruntime
session = onnxruntime.InferenceSession("{file}")
about = session.get_modelmeta().custom_metadata_map  # every entry above, as text or JSON
windows = numpy.zeros((1, {leads}, {points}), "float32")  # (batch, lead, time), behind the steps before and on a window
probabilities = session.run(["probabilities"], {{"ecg": windows}})[0]  # (batch, label)
```
"""
_SAFETENSORS = """\
```bash
ecg-lightning fit --model.weights {file} ...  # the backbone, to train on
```
"""


def model_card(trained: "TrainedRun", metadata: Mapping[str, str], path: Path, checked: str) -> str:
    """The card in Markdown; ``path`` is the exported file, ``checked`` how far its probabilities are from the run's."""
    labels = json.loads(metadata["label_names"])
    signal = trained.signal
    points = signal.num_time_points if split_steps(signal.batch_chain)[0] else signal.window_points
    use = _ONNX if path.suffix.lower() == ".onnx" else _SAFETENSORS
    parts = [
        f"# {path.name}",
        f"> {NO_DEVICE}",
        f"An ECG classifier of {len(labels)} labels (task `{trained.task}`): {', '.join(labels)}. It gives a "
        "probability for each, which depend on how frequent the labels were where it was trained.",
        "## What it is",
        _bullets(
            {
                "file": f"`{path.name}`, sha256 `{file_sha256(path)}`",
                "exported from": f"checkpoint `{metadata['checkpoint']}`, sha256 `{metadata['checkpoint_sha256']}`, by "
                f"ecg_lightning {metadata['ecg_lightning']}",
                "compared with the run": f"largest difference of a probability {checked}",
            }
        ),
        "## What it takes",
        _bullets({name: f"`{metadata[name]}`" for name in _TAKEN if name in metadata}),
        use.format(file=path.name, leads=len(signal.leads), points=points),
        "## Where it was trained and how it was judged",
        _bullets(_training(trained)),
        "## The backbone",
        _bullets(_backbone(trained)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_TAKEN = (
    *("leads", "unit", "record_rate_hz", "shortest_record_seconds", "longest_record_seconds", "other_rates"),
    *(
        "steps_before_window",
        "window_rate_hz",
        "window_points",
        "windows",
        "steps_on_window",
        "steps_in_network",
        "label_names",
        "thresholds",
        "temperature",
    ),
)


def _bullets(entries: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name.replace('_', ' ')}**: {text}" for name, text in entries.items())


def _training(trained: "TrainedRun") -> dict[str, str]:
    """Data, method and the figures that the run's own results give for this checkpoint."""
    folder = trained.run.path
    environment = json.loads(trained.run.environment.read_text()) if trained.run.environment.exists() else {}
    phases = trained.post_training
    entries = {
        "data": f"store sha256 `{environment.get('store_sha256', 'unknown')}`",
        "method": f"linear probe, {phases['probe']['epochs']} epochs; fine-tuning with stochastic depth "
        f"{phases['drop_path_rate']:g}, {phases['fine_tune']['epochs']} epochs (arXiv 2509.12991)",
    }
    if weights := environment.get("weights"):
        entries["started from"] = f"`{Path(weights).name}`, sha256 `{environment.get('weights_sha256')}`"
    for path in sorted(folder.glob("metrics_*.json")):
        metrics: dict[str, Any] = json.loads(path.read_text())
        meta = metrics["meta"]
        if meta["checkpoint_sha256"] == trained.checkpoint_sha256 and metrics["auroc"] is not None:
            entries[path.stem.removeprefix("metrics_")] = (
                f"macro AUROC {metrics['auroc']:.4f}, macro AUPRC {metrics['auprc']:.4f} over "
                f"{metrics['num_labels']:g} labels, {metrics['num_records']} records of fold(s) "
                f"{', '.join(map(str, meta['folds']))}, store sha256 `{meta['store_sha256'][:12]}...`"
            )
    return entries


def _backbone(trained: "TrainedRun") -> dict[str, str]:
    backbone = trained.classifier.backbone
    parameters = f"{sum(each.numel() for each in backbone.parameters()):,}"
    if backbone.registered_name is None:
        return {"network": f"`{backbone.flag_name()}`, of the user's own", "parameters": parameters}
    card = backbone_card(backbone.registered_name)
    seen = {True: "yes", False: "no", None: "unknown"}[card.ptbxl_in_pretraining]
    return {
        "network": f"`{card.name}`: {card.summary}",
        "parameters": parameters,
        "code": f"{card.repository}, {card.code_licence}",
        "published weights": f"{card.weights}, {card.weights_licence}",
        "pre-training data of the published weights": card.pretraining_data,
        "PTB-XL in that pre-training": seen,
    }
