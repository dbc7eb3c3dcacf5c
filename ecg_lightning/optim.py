"""Parameter groups, and learning rates as pure functions of the step in a phase: nothing to store or resume."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, Protocol

from torch import nn
from torch.optim import Optimizer

Shape = Literal["constant", "cosine"]
HEAD = "head"


class Layered(Protocol):
    """What the groups need of a backbone (see `ecg_lightning.backbones.Backbone`)."""

    num_layers: int

    @property
    def no_weight_decay(self) -> Collection[str]:
        """Last parts of names without weight decay."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any module."""
        ...

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, 0 (stem) .. ``num_layers``."""
        ...


def parameter_groups(backbone: Layered, head: nn.Module) -> list[dict[str, Any]]:
    """One group per (layer, with or without weight decay), in a fixed order, the head's last.

    No weight decay for tensors of one axis (biases, norms) and for the backbone's tokens and position tables.
    Each group carries ``layer`` (a number, or "head"), ``decay`` and its parameters' ``names``: a checkpoint of another
    network is told from ours by them.
    """
    top = backbone.num_layers + 1
    members: dict[tuple[int, bool], dict[str, nn.Parameter]] = {}
    for name, parameter in backbone.named_parameters():
        decay = parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in backbone.no_weight_decay
        members.setdefault((backbone.layer_of(name), decay), {})[f"backbone.{name}"] = parameter
    for name, parameter in head.named_parameters():
        members.setdefault((top, parameter.ndim > 1), {})[f"head.{name}"] = parameter
    return [
        {"params": [*named.values()], "names": [*named], "layer": HEAD if layer == top else layer, "decay": decay}
        for (layer, decay), named in sorted(members.items(), key=lambda item: item[0])
    ]


def scheduled(
    step: int, num_steps: int, *, peak: float, floor: float = 0.0, warmup_steps: int = 0, shape: Shape = "constant"
) -> float:
    """Learning rate of one step of a phase of ``num_steps`` optimizer steps.

    Rises linearly to ``peak`` over ``warmup_steps``, then stays (``constant``) or falls along half a cosine to
    ``floor``, which the last step of the phase just reaches.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if shape == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def layer_scale(layer: int | str, num_layers: int, layer_decay: float) -> float:
    """Factor on a layer's learning rate: 1 for the head and the last layer, ``layer_decay`` less per layer below."""
    return 1.0 if layer == HEAD else layer_decay ** (num_layers - int(layer))


def set_rates(optimizer: Optimizer, rates: Mapping[int | str, float], weight_decay: float) -> None:
    """Sets the learning rate of each layer's groups and the weight decay of the groups that take it."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["layer"]]
        group["weight_decay"] = weight_decay if group["decay"] else 0.0
