"""The backbone through `torch.compile`: in place, so that names, layers and checkpoints are those of the plain one.

What is compiled anew over a run: once for what the phase trains, once for what it validates, per phase; with batches of
any length, as that is told to the compiler beforehand (tests/test_compiling.py counts).
"""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ecg_lightning.backbones import Backbone
from ecg_lightning.stochastic_depth import StochasticDepth

log = logging.getLogger(__name__)

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Of `torch.compile`."""
BACKEND = "inductor"


def compile_in_place(backbone: Backbone, mode: CompileMode) -> None:
    """From now on a call of the backbone runs compiled code; the first one in each phase waits for the compiler."""
    options = {"mode": mode} if BACKEND == "inductor" else {}
    backbone.compile(backend=BACKEND, **options)
    log.info(
        "%s is compiled (torch.compile, mode %s): the first batches of a phase take longer",
        type(backbone).__name__, mode,
    )  # fmt: skip


def is_compiled(backbone: Backbone) -> bool:
    """Whether a call of the backbone runs compiled code."""
    return backbone._compiled_call_impl is not None


def uncompile(backbone: Backbone) -> None:
    """A call runs the code as written again: what judges a run is the same whether it was compiled or not."""
    backbone._compiled_call_impl = None
    torch.compiler.reset()  # it keeps eight variants of a network for the whole process, then gives up


def told_of_lengths(backbone: Backbone, drops: Sequence[StochasticDepth], ecg: Tensor) -> Tensor:
    """``ecg`` (batch, lead, time) as it is; a compiled backbone, whose branches are ``drops``, is told of any length.

    Otherwise a short last batch, and each that is validated, would be compiled for its own length.
    """
    if is_compiled(backbone):
        coins = [drop.coins for drop in drops if drop.coins is not None]
        for tensor in (ecg, *coins):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return ecg
