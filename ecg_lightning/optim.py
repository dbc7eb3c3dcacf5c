"""Parameter groups, the optimizer over them, and learning rates as pure functions of the step: nothing to resume."""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import nn
from torch.optim import AdamW, Optimizer

log = logging.getLogger(__name__)

Shape = Literal["constant", "cosine"]
HEAD = "head"
FUSED_ON = ("cpu", "cuda")
"""Devices on which AdamW's fused kernel is tried out; torch 2.6 and later have it on both."""


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


def parameter_groups(backbone: Layered, head: nn.Module, head_name: str = HEAD) -> list[dict[str, Any]]:
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
        members.setdefault((top, parameter.ndim > 1), {})[f"{head_name}.{name}"] = parameter
    return [
        {"params": [*named.values()], "names": [*named], "layer": HEAD if layer == top else layer, "decay": decay}
        for (layer, decay), named in sorted(members.items(), key=lambda item: item[0])
    ]


def adamw(
    groups: Sequence[dict[str, Any]], *, unscales: bool = True, betas: tuple[float, float] = (0.9, 0.999)
) -> AdamW:
    """AdamW over `parameter_groups`, one fused kernel for all tensors where the device has it; rates are set per step.

    Args:
        groups: as `parameter_groups` gives them.
        unscales: whether the kernel may divide float16's scaled gradients itself; False leaves that to the scaler, as
            clipping needs it: Lightning refuses to clip what it takes to be scaled still, in bfloat16 as well.
        betas: of the moving averages of gradient and square.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    fused = all(p.device.type in FUSED_ON and p.is_floating_point() for p in parameters)
    if not fused:
        kinds = sorted({f"{p.dtype} on {p.device.type}" for p in parameters})
        log.info("AdamW is not fused: the network holds %s", ", ".join(kinds))
    optimizer = AdamW(groups, lr=0.0, weight_decay=0.0, betas=betas, fused=fused)
    optimizer._step_supports_amp_scaling = fused and unscales
    optimizer.register_load_state_dict_pre_hook(_keep_kernel)
    return optimizer


def _keep_kernel(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint brings the kernel of the machine that wrote it, and would set it here unasked."""
    own = {name: optimizer.param_groups[0][name] for name in ("fused", "foreach")}
    return {**state, "param_groups": [{**group, **own} for group in state["param_groups"]]}


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
