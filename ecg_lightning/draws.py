"""Seeds of a training step's random draws: functions of where the step stands, so that nothing has to be stored."""

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """One seed of 63 bits from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_draws(seed: int, device: torch.device) -> None:
    """The generators that a step on ``device`` draws from.

    `torch.manual_seed` seeds those of all devices: without a GPU it keeps three stack traces for each call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)
