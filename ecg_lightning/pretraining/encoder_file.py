"""encoder.safetensors: the backbone that a pre-training made, with all that it was made from, and a card beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import ecg_lightning
from ecg_lightning.backbones import Backbone
from ecg_lightning.backbones.provenance import ENTRY, Pretraining
from ecg_lightning.chains import chain_to_json
from ecg_lightning.runs import NO_DEVICE, file_sha256, whole_file

FILE, CARD = "encoder.safetensors", "encoder.md"


def write_encoder(
    folder: Path,
    backbone: Backbone,
    sizes: Mapping[str, Any],
    history: Sequence[Pretraining],
    judged: Mapping[str, float],
) -> Path:
    """Writes the backbone's weights, names and all, and the card beside them.

    Args:
        folder: the run's.
        backbone: trained.
        sizes: the arguments that it was built with, where they differ from its defaults.
        history: what it was trained on, its beginnings first.
        judged: the last figures of the run, for the card.
    """
    weights = {
        f"backbone.{name}": tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in backbone.state_dict().items()
    }
    path = folder / FILE
    with whole_file(path) as temporary:
        temporary.write_bytes(save(weights, {ENTRY: json.dumps(facts_of(backbone, sizes, history))}))
    with whole_file(folder / CARD) as temporary:
        temporary.write_text(card_of(path, backbone, sizes, history, judged))
    return path


def facts_of(backbone: Backbone, sizes: Mapping[str, Any], history: Sequence[Pretraining]) -> dict[str, Any]:
    """All that a program needs to build the network again and feed it, and what it was made from."""
    signal = backbone.signal
    return {
        "backbone": backbone.flag_name(),
        "sizes": dict(sizes),
        "record_rate_hz": signal.record_rate,
        "leads": list(signal.leads),
        "num_time_points": signal.num_time_points,
        "chain": json.loads(chain_to_json(signal.chain)),
        "pretraining": [one.to_json() for one in history],
        "ecg_lightning": ecg_lightning.__version__,
        "note": NO_DEVICE,
    }


def card_of(
    path: Path,
    backbone: Backbone,
    sizes: Mapping[str, Any],
    history: Sequence[Pretraining],
    judged: Mapping[str, float],
) -> str:
    """The card in Markdown."""
    signal, name = backbone.signal, backbone.flag_name()
    flags = "".join(f" --model.backbone.{key} {json.dumps(value)}" for key, value in sizes.items())
    lines = [
        f"# {path.name}",
        "",
        f"> {NO_DEVICE}",
        "",
        f"The encoder of a masked autoencoder: `{name}`, {sum(p.numel() for p in backbone.parameters()) / 1e6:.1f} M "
        f"parameters, sha256 `{file_sha256(path)}`, by ecg_lightning {ecg_lightning.__version__}.",
        "",
        "## What it was trained on",
        "",
        *(f"- {one}" for one in history),
        "",
        "Scores on records that it was trained on flatter it, though it saw no label: `fit` refuses to validate or "
        "test on these folds of these sources.",
        "",
        "## What it takes",
        "",
        f"- {len(signal.leads)} leads ({', '.join(signal.leads)}), {signal.num_time_points} time points at "
        f"{signal.sampling_rate:g} Hz, from records of {signal.record_rate:g} Hz in mV",
        f"- chain `{chain_to_json(signal.chain)}`",
        "",
        "## How it was judged",
        "",
        *(f"- {figure}: {value:.4f}" for figure, value in judged.items()),
        "",
        "```bash",
        f"ecg-lightning fit --config backbone/{name}{flags} --config recipe/default --model.weights {path.name} ...",
        "```",
    ]
    return "\n".join(lines) + "\n"
