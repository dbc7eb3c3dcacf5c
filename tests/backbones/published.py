"""References of published networks: their weights as a file, their input, and how far a backbone is from them."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from seed_recipe import seeded_input, seeded_state
from torch import Tensor

from ecg_lightning.backbones import Backbone, LoadReport, load_weights
from ecg_lightning.signals import LEADS_12

FOLDER = Path(__file__).parents[1] / "references"
HEADS = ("head", "dense", "classifier", "proj", "output_mapping")

POOLED, NORMED_TOKENS, TOKENS = 1e-5, 1e-5, 3e-5
"""Largest differences allowed: float32 against float64 is up to 1.8e-6 and, for un-normed tokens, 8.6e-6."""


XRESNET = 2e-5
"""xresnet1d101's values go up to 19.7: there float32 against float64 is up to 9e-6."""


@dataclass(frozen=True)
class Network:
    """Which backbone a reference is of, how its outputs lie, and the tolerances of its test."""

    backbone: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    tokens: float = TOKENS
    pooled: float = POOLED
    time_last: bool = False
    fastai_head: str | None = None
    """Prefix of the head's names, where it is the PTB-XL benchmark's."""


ECGFOUNDER_REDUCED: Mapping[str, Any] = {
    "base_filters": 16, "filters": (16, 32, 32, 80), "blocks": (2, 2, 2, 3), "num_time_points": 500
}  # fmt: skip
MULTIRESNET_REDUCED: Mapping[str, Any] = {"depth": 2, "dim": 16, "kernel": 4, "num_time_points": 250}
NETWORKS = {
    "ecg_fm_base": Network("ecg_fm_base"),
    "ecg_jepa_base": Network("ecg_jepa_base", tokens=NORMED_TOKENS),
    "ecgfounder_12lead_full_nobn": Network("ecgfounder", time_last=True),
    "ecgfounder_1lead_nobn": Network("ecgfounder_1lead", time_last=True),
    "ecgfounder_reduced_bn": Network("ecgfounder", {**ECGFOUNDER_REDUCED, "norm": True}, time_last=True),
    "ecgfounder_reduced_nobn": Network("ecgfounder", ECGFOUNDER_REDUCED, time_last=True),
    "hubert_ecg_small": Network("hubert_ecg_small"),
    "hubert_ecg_base": Network("hubert_ecg_base"),
    "hubert_ecg_large": Network("hubert_ecg_large"),
    "inception1d": Network("inception1d", tokens=1e-5, time_last=True, fastai_head="layers.1."),
    "mtecg_ti_12_25": Network("mtecg_ti", tokens=NORMED_TOKENS),
    "mtecg_ti_12_25_gap": Network("mtecg_ti", {"readout": "mean"}),
    "multiresnet_ptbxl": Network("multiresnet", tokens=NORMED_TOKENS),
    "multiresnet_reduced": Network("multiresnet", MULTIRESNET_REDUCED, tokens=NORMED_TOKENS),
    "st_mem_base": Network("st_mem_base"),
    "st_mem_small": Network("st_mem_small"),
    "xresnet1d101": Network("xresnet1d101", tokens=XRESNET, pooled=XRESNET, time_last=True, fastai_head="8."),
}
"""All references in full; `benchmarks/references.py` measures every one."""


@dataclass
class Reference:
    """What the published code computed with the weights of ``seed_recipe``."""

    name: str
    shapes: dict[str, list[int]]
    input_shape: list[int]
    outputs: dict[str, Tensor]
    step: int | None
    """Every so many tokens are kept; None: as their number says."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Second names of tensors that published files hold twice, and the first ones."""

    @classmethod
    def read(cls, name: str, folder: Path = FOLDER) -> "Reference":
        table = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as arrays:
            outputs = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "x"}
        step = table["outputs"].get("tokens_slice", {}).get("step")
        return cls(name, table["state"], table["input_shape"], outputs, step, table.get("state_aliases", {}))

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict in the published layout, head included."""
        state = {name: torch.from_numpy(array) for name, array in seeded_state(self.shapes).items()}
        return state | {second: state[first] for second, first in self.aliases.items()}

    @property
    def ecg(self) -> Tensor:
        """The input (batch, lead, time)."""
        x = torch.from_numpy(seeded_input(self.name, self.input_shape))
        return x.view(len(x), len(LEADS_12), -1) if x.ndim == 2 else x.flatten(0, -3)  # two axes: lead after lead

    def load_into(
        self,
        backbone: Backbone,
        folder: Path,
        state: dict[str, Tensor] | None = None,
        beside: Mapping[str, Any] = {"epoch": 3},
    ) -> LoadReport:
        """Through a file as the authors publish it; ``state``: what it holds, where that is not the reference's own."""
        path = folder / f"{self.name}.pth"
        torch.save({**beside, backbone.published_key: state or self.state}, path)
        report = load_weights(backbone, path)
        path.unlink()
        return report

    def differences(
        self, backbone: Backbone, *, time_last: bool = False, head: Callable[[Tensor], dict[str, Tensor]] | None = None
    ) -> dict[str, float]:
        """Largest difference of pooled features and, where the reference has them, of tokens and logits.

        ``head``: what the published one makes of the pooled features, where it is more than one linear layer.
        """
        with torch.no_grad():
            tokens, pooled = backbone.eval().tokens(self.ecg), backbone.eval()(self.ecg)
        tokens = tokens.transpose(1, 2) if time_last else tokens
        computed = {"pooled": pooled} | (head or self._logits)(pooled)
        if "tokens" in self.outputs:
            computed["tokens"] = tokens
        elif "tokens_slice" in self.outputs:
            step = self.step or -(-tokens.shape[1] // self.outputs["tokens_slice"].shape[1])
            computed["tokens_slice"] = tokens[:, ::step]
        assert computed.keys() == {name for name in self.outputs if name in (*computed, "tokens", "logits")}
        for name, values in computed.items():
            assert values.shape == self.outputs[name].shape
        return {
            name.removesuffix("_slice"): (values - self.outputs[name]).abs().max().item()
            for name, values in computed.items()
        }

    def _logits(self, pooled: Tensor) -> dict[str, Tensor]:
        head = next((head for head in HEADS if f"{head}.weight" in self.shapes), None)
        if head is None:
            return {}
        shapes = {name: self.shapes[name] for name in (f"{head}.weight", f"{head}.bias")}
        weight, bias = (torch.from_numpy(array) for array in seeded_state(shapes).values())
        return {"logits": F.linear(pooled, weight, bias)}


def fastai_head(reference: Reference, prefix: str) -> Callable[[Tensor], dict[str, Tensor]]:
    """The head of the PTB-XL benchmark's networks in evaluation, from the tensors of its published names."""
    state = reference.state

    def norm(layer: int, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{prefix}{layer}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def linear(layer: int, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{prefix}{layer}.weight"], state[f"{prefix}{layer}.bias"])

    def outputs(pooled: Tensor) -> dict[str, Tensor]:
        penultimate = norm(6, F.relu(linear(4, norm(2, pooled))))
        return {"penultimate": penultimate, "logits": linear(8, penultimate)}

    return outputs


def shrunk(shapes: dict[str, list[int]], lengths: dict[int, int]) -> dict[str, list[int]]:
    """The same names with each axis of a length in ``lengths`` made shorter."""
    return {name: [lengths.get(length, length) for length in shape] for name, shape in shapes.items()}


@contextmanager
def foreign_class(module: str, name: str) -> Iterator[type]:
    """A class of another package, importable only while a file with objects of it is written."""
    parts = module.split(".")
    homes = {".".join(parts[: end + 1]): ModuleType(".".join(parts[: end + 1])) for end in range(len(parts))}
    setattr(homes[module], name, type(name, (), {"__module__": module}))
    sys.modules.update(homes)
    try:
        yield getattr(homes[module], name)
    finally:
        for home in homes:
            del sys.modules[home]


def is_equal(differences: dict[str, float], tokens: float, pooled: float = POOLED) -> bool:
    """Whether all differences lie within the tolerances; ``tokens``: that of the tokens, ``pooled``: of all others."""
    limits = {"pooled": pooled, "penultimate": pooled, "logits": pooled, "tokens": tokens}
    return all(difference <= limits[name] for name, difference in differences.items())
