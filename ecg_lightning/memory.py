"""Out of memory in a step: said with its place and the ways out, whichever allocator said so."""

import torch
from lightning.pytorch import Trainer

from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import StoppedError

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was memory that a step lacked: of the device, of the machine, or of Python."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_ALLOCATOR)


def out_of_memory(error: BaseException, trainer: Trainer, data: PTBXLDataModule) -> StoppedError:
    """The message: where it happened, and what takes less memory and leaves the run the same."""
    loop = trainer.fit_loop
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    records = data.batch_size / trainer.world_size
    return StoppedError(
        f"out of memory on {trainer.strategy.root_device} in epoch {trainer.current_epoch}, batch "
        f"{max(0, loop.epoch_loop.batch_progress.current.ready - 1)}, with {records:g} records a process ({reason}): "
        "spread the batch over more processes (--trainer.devices), round off (--trainer.precision bf16-mixed), keep "
        "signals elsewhere (--data.residency memmap), or halve --data.batch_size and double "
        "--trainer.accumulate_grad_batches"
    )
