"""Masked pre-training that encodes the visible patches alone, against encoding all of them: processor time of a step.

Forward, backward and fused AdamW on a resident batch, decoder and loss included, in turn (A B A B), medians, one
thread. *All* runs the same encoder over every patch and hands the decoder the tokens of the visible ones, which costs
what an encoder with mask tokens in its input does. The second ratio is of the encoder's forward pass alone.

    python benchmarks/pretrain.py [NAME ...]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from in_turn import in_turn, times_as_fast
from torch import Tensor

from ecg_lightning.backbones import PatchBackbone, create_backbone
from ecg_lightning.backbones.patches import taken
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder
from ecg_lightning.pretraining.masking import visible_of

NAMES = ("vit", "mtecg_ti", "st_mem_small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mask_ratio", type=float, default=0.75)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"batch of {arguments.batch}, {arguments.mask_ratio:.0%} masked, {arguments.rounds} rounds in turn, medians")
    print("| backbone | patches | all, s | visible, s | a step, times as fast | the encoder |")
    print("|---|---|---|---|---|---|")
    for name in arguments.names:
        compare(name, arguments.batch, arguments.rounds, arguments.mask_ratio)


def compare(name: str, size: int, rounds: int, mask_ratio: float) -> None:
    """One line."""
    backbone = create_backbone(name)
    assert isinstance(backbone, PatchBackbone)
    signal, patches = backbone.signal, backbone.num_patches
    ecg, noise = torch.randn(size, len(signal.leads), signal.num_time_points), torch.rand(size, patches)
    module = MaskedAutoencoder(backbone, mask_ratio=mask_ratio)
    optimizer = module.configure_optimizers()
    visible = visible_of(noise, mask_ratio)
    everything = torch.arange(patches).expand(size, -1)
    of_visible = backbone.visible_tokens

    def of_all(ecg: Tensor, visible: Tensor) -> Tensor:
        return taken(of_visible(ecg, everything), visible)

    def step(tokens: Callable[[Tensor, Tensor], Tensor]) -> None:
        backbone.visible_tokens = tokens  # type: ignore[method-assign]
        optimizer.zero_grad()
        module(ecg, noise).losses.mean().backward()
        optimizer.step()

    @torch.no_grad()
    def encode(tokens: Callable[[Tensor, Tensor], Tensor]) -> None:
        tokens(ecg, visible)

    steps, encoders = (
        in_turn(
            {"all": partial(part, of_all), "visible": partial(part, of_visible)},
            rounds,
            warm_up=1,
            now=time.process_time,
        )
        for part in (step, encode)
    )
    seconds = " | ".join(f"{median(one):.3f}" for one in steps.values())
    ratios = " | ".join(f"{times_as_fast(one['all'], one['visible']):.2f}" for one in (steps, encoders))
    print(f"| {name} | {patches} | {seconds} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
