"""The promise that every backbone keeps, and the registry of those that ship."""

import importlib
import inspect
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec

_log = logging.getLogger(__name__)

Renames = tuple[tuple[str, str], ...]
"""Regular expressions that match the start of a published name, and what stands there in ours."""


class Backbone(nn.Module, ABC):
    """A network from ECG to features, without a task head.

    Every residual branch runs through one `ecg_lightning.stochastic_depth.StochasticDepth`. Parameters are ordered in
    layers 0 (stem) .. ``num_layers`` (the last norm, or the last block where none follows) for layer-wise decay.
    """

    signal: SignalSpec
    feature_dim: int
    num_layers: int
    registered_name: ClassVar[str | None] = None
    """Name in the registry; None for a user's own class."""
    no_weight_decay: ClassVar[frozenset[str]] = frozenset()
    """Last parts of parameter names (tokens, position tables) that get no weight decay, besides 1-D tensors."""
    published_key: ClassVar[str | None] = None
    """Entry of the published checkpoint that holds the weights."""
    published_prefix: ClassVar[str | None] = None
    """How the backbone's names start in a published file that holds a larger network; the rest of it is dropped."""
    unused_prefixes: ClassVar[tuple[str, ...]] = ("head.",)
    """How names in the published checkpoint start that are no part of a backbone: heads, decoders."""
    renames: ClassVar[Renames] = ()
    """How names of the published checkpoint become the backbone's; the first that matches counts."""
    foreign_objects: ClassVar[tuple[str, ...]] = ()
    """Modules or classes whose objects lie in the published checkpoint beside the weights; they are left unread."""

    @abstractmethod
    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), before pooling; a convolutional network's time steps."""

    @abstractmethod
    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> features (batch, feature_dim)."""

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Layer of the parameter ``name``: 0 (stem) .. ``num_layers``; each parameter lies in exactly one."""

    @classmethod
    def flag_name(cls) -> str:
        """What `--backbone` calls it: the registered name, or the class path."""
        return cls.registered_name or f"{cls.__module__}.{cls.__qualname__}"

    def own_name(self, published: str) -> str | None:
        """What a tensor of the published checkpoint is called here; None: the backbone has no place for it.

        By the table `renames`; override it where that cannot say it. A name that is already the backbone's own must
        come back unchanged, because `load_weights` reads the package's files the same way. Two published names of one
        tensor may become one.
        """
        for pattern, own in self.renames:
            if match := re.match(pattern, published):
                return match.expand(own) + published[match.end() :]
        return None if published.startswith(self.unused_prefixes) else published

    def wrappers(self, names: Collection[str]) -> tuple[str, ...]:
        """What published training classes put before the backbone's names, given all ``names`` of the file.

        Each is taken off once, in this order, from the names that start with it. Override it where files come wrapped.
        """
        return ()

    def remark(self, names: Collection[str]) -> str:
        """What a user has to know who loads a published file with these ``names``; empty: nothing."""
        return ""

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """What block ``block`` makes of its input ``x`` when all its branches are dropped: ``x``, unless overridden."""
        return x

    def check_input(self, ecg: Tensor, *, any_length: bool = False) -> None:
        """Refuses an input whose leads or, unless ``any_length``, time points are not those of ``signal``."""
        leads, points = len(self.signal.leads), self.signal.num_time_points
        fits = ecg.ndim == 3 and ecg.shape[1] == leads and (any_length or ecg.shape[2] == points)
        if not fits:
            length = "any number of" if any_length else f"{points}"
            raise InputError(
                f"{type(self).__name__} takes (batch, {leads} leads, {length} time points at "
                f"{self.signal.sampling_rate:g} Hz), got {tuple(ecg.shape)}: cut and order the ECG as `signal` says"
            )


@dataclass(frozen=True)
class Figures:
    """Published results of one protocol: ``values`` by task, ``metric``, how they were measured, where they stand."""

    metric: str
    values: Mapping[str, float]
    protocol: str
    source: str


@dataclass(frozen=True)
class Card:
    """Where a backbone comes from and what it has seen; what is not known says "unknown".

    ``ptbxl_in_pretraining`` is None when unknown; True makes every PTB-XL result of the pre-trained network suspect.
    """

    name: str
    summary: str
    repository: str
    commit: str
    code_licence: str
    weights: str
    weights_licence: str
    pretraining_data: str
    ptbxl_in_pretraining: bool | None
    published: tuple[Figures, ...] = field(default=())


_CLASSES: dict[str, type[Backbone]] = {}
_CARDS: dict[str, Card] = {}

BackboneClass = TypeVar("BackboneClass", bound=type[Backbone])


def register(card: Card) -> Callable[[BackboneClass], BackboneClass]:
    """Class decorator: makes a backbone known as ``card.name``.

    Raises:
        ValueError: when another class has the name.
    """

    def enter(backbone: BackboneClass) -> BackboneClass:
        if card.name in _CLASSES:
            taken = _CLASSES[card.name]
            raise ValueError(
                f"backbone {card.name!r} is registered twice, by {taken.__module__}.{taken.__qualname__} and "
                f"{backbone.__module__}.{backbone.__qualname__}: give one of them another name"
            )
        _CLASSES[card.name], _CARDS[card.name] = backbone, card
        backbone.registered_name = card.name
        return backbone

    return enter


def list_backbones() -> list[str]:
    """Names of all registered backbones, in alphabetical order."""
    return sorted(_CLASSES)


def backbone_class(name: str) -> type[Backbone]:
    """The class registered as ``name``, or the user's own at a dotted path ("package.module.Class").

    Raises:
        InputError: when there is none, or when it is no `Backbone`.
    """
    if name in _CLASSES:
        return _CLASSES[name]
    if "." not in name:
        raise InputError(f"unknown backbone {name!r}, known are {', '.join(list_backbones())}, or package.module.Class")
    return _imported(name)


def backbone_card(name: str) -> Card:
    """The card of a registered backbone.

    Raises:
        InputError: when the name is not registered.
    """
    if name not in _CARDS:
        raise InputError(
            f"no card for backbone {name!r}, there are cards for {', '.join(list_backbones())}: "
            "decorate a class of your own with @register(Card(...))"
        )
    return _CARDS[name]


def create_backbone(name: str, weights: str | Path | None = None, **sizes: Any) -> Backbone:
    """Builds a backbone, with the weights of a file when one is given (`load_weights`, strict).

    Args:
        name: a registered name, or the dotted path of the user's own class.
        weights: a published checkpoint or one of this package, by path or as ``hf://owner/repository/file``; what came
            of it is logged. None: the initialisation.
        **sizes: arguments of the backbone's class, where they differ from its defaults.

    Raises:
        InputError: for an unknown name or argument, sizes that do not fit, or weights that do not.
    """
    from ecg_lightning.backbones.checkpoints import load_weights  # which imports this file

    backbone = _built(name, sizes)
    if weights is not None:
        _log.info("%s", load_weights(backbone, weights))
    return backbone


def meta_backbone(name: str, **sizes: Any) -> Backbone:
    """The backbone without storage for its weights: names, shapes and signal, at no cost."""
    with torch.device("meta"):
        return _built(name, sizes)


def backbone_signal(name: str, **sizes: Any) -> SignalSpec:
    """What the backbone takes as its input."""
    return meta_backbone(name, **sizes).signal


def _built(name: str, sizes: Mapping[str, Any]) -> Backbone:
    found = backbone_class(name)
    parameters = inspect.signature(found).parameters
    unknown = sorted(sizes.keys() - parameters.keys())
    if unknown and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        raise InputError(f"backbone {name!r} takes no {', '.join(unknown)}, its arguments are {', '.join(parameters)}")
    return found(**sizes)


def _imported(path: str) -> type[Backbone]:
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"backbone {path!r} cannot be imported ({error}): give package.module.Class, or one of "
            f"{', '.join(list_backbones())}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise InputError(f"backbone {path!r} is no subclass of ecg_lightning.backbones.Backbone: derive it from there")
    return found
