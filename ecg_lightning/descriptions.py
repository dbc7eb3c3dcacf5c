"""What a run folder and a backbone hold, for people and for programs."""

from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree
from safetensors import SafetensorError, safe_open

from ecg_lightning.backbones import backbone_card, list_backbones, meta_backbone
from ecg_lightning.backbones.provenance import ENTRY
from ecg_lightning.chains import chain_to_json
from ecg_lightning.errors import InputError


def is_run(path: str) -> bool:
    """Whether ``path`` is a run folder."""
    return (Path(path) / "state.json").exists()


def inspect_run(path: str, *, json: bool = False) -> None:
    """Prints what a run folder holds: state, config in short, metrics of each split."""
    folder = Path(path)
    content: dict[str, Any] = {
        name.stem: _json(name)
        for name in (folder / "state.json", folder / "environment.json", *sorted(folder.glob("metrics_*.json")))
        if name.exists()
    }
    content["checkpoints"] = sorted(file.name for file in (folder / "checkpoints").glob("[!.]*"))
    _print_nested(f"run {folder}", content, json=json)


def _json(path: Path) -> Any:
    try:
        return loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): put back the file that the run wrote") from None


def inspect_weights(path: str, *, json: bool = False) -> None:
    """Prints what a safetensors file says of itself, and how many tensors it holds."""
    try:
        with safe_open(path, "pt") as file:
            entries, tensors = dict(file.metadata() or {}), [*file.keys()]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no whole safetensors file ({error}): fetch or write it again") from None
    content: dict[str, Any] = {"tensors": len(tensors)}
    for name, value in entries.items():
        data = _as_data(value)
        content |= data if name == ENTRY and isinstance(data, dict) else {name: data}
    _print_nested(f"weights {path}", content, json=json)


def _as_data(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return text


def inspect_backbone(name: str, *, json: bool = False) -> None:
    """Prints a backbone's card, its size and the signal it takes."""
    backbone = meta_backbone(name)
    signal = backbone.signal
    content = {
        **(asdict(backbone_card(name)) if name in list_backbones() else {"name": name, "summary": "your own: no card"}),
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "feature_dim": backbone.feature_dim,
        "layers": backbone.num_layers + 1,
        "signal": {
            "record_rate_hz": signal.record_rate,
            "input_rate_hz": signal.sampling_rate,
            "num_time_points": signal.num_time_points,
            "leads": list(signal.leads),
            "chain": loads(chain_to_json(signal.chain)),
            "windows": asdict(signal.windows),
        },
    }
    _print_nested(f"backbone {name}", content, json=json)


def _print_nested(title: str, content: dict[str, Any], *, json: bool) -> None:
    if json:
        print(dumps(content, indent=1))
        return
    tree = Tree(f"[bold]{title}")
    _grow(tree, content)
    Console().print(tree)


def _grow(tree: Tree, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _grow(tree.add(escape(str(key))), value)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) for one in value):
            _grow(tree.add(escape(str(key))), {str(number): one for number, one in enumerate(value, start=1)})
        else:
            tree.add(escape(f"{key}: {value}"))
