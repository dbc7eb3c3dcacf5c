"""A checkpoint is held against the network that it is to be loaded into, before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ecg_lightning.errors import InputError


def refuse_other_network(module: nn.Module, checkpoint: Mapping[str, Any], source: str = "the checkpoint") -> None:
    """Refuses a checkpoint, called ``source``, whose tensors are not those of ``module`` by name and shape.

    Raises:
        InputError: naming the first that differs.
    """
    want = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    have = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    differing = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    if differing:
        raise InputError(
            f"{source} holds another network: {len(differing)} tensors differ, the first {differing[0]} is "
            f"{have.get(differing[0])} there and {want.get(differing[0])} here: use the config of its run"
        )
