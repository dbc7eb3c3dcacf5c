"""What the phase switch needs of DDP: replicas that are equal, and a reducer over what is now trained.

Both touch internals of Lightning 2.6 (`strategy.model`, `configure_ddp`); tests/test_ddp.py guards them.
"""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy


def check_replicas_equal(trainer: Trainer, module: LightningModule) -> None:
    """Compares all parameters and buffers over the processes, bit for bit; collective.

    Raises:
        RuntimeError: naming the tensors that differ. The re-wrap would hide it: it copies rank 0's.
    """
    if trainer.world_size == 1:
        return
    state = module.state_dict()
    digests = torch.stack([_digest(tensor) for tensor in state.values()])  # (tensor, 2)
    gathered = trainer.strategy.all_gather(digests)  # (process, tensor, 2)
    equal = (gathered == gathered[0]).flatten(2).all(dim=2).all(dim=0).tolist()
    differing = [name for name, same in zip(state, equal, strict=True) if not same]
    if differing:
        raise RuntimeError(
            f"{len(differing)} of {len(state)} tensors differ between the {trainer.world_size} processes, "
            f"the first is {differing[0]}: their gradients were not reduced; this run cannot be trusted"
        )


def rewrap(trainer: Trainer) -> None:
    """Rebuilds the gradient reducer over the parameters that require a gradient now; collective.

    DDP registers parameters when it wraps: those that are unfrozen later are never reduced, silently.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()


def _digest(tensor: torch.Tensor) -> torch.Tensor:
    """Two int64 sums over the bits of a tensor, one weighted by place."""
    bits = tensor.detach().contiguous().view(-1).view(torch.uint8).long()
    weights = torch.arange(1, len(bits) + 1, device=bits.device)
    return torch.stack([bits.sum(), (bits * (weights % 65_521)).sum()])
