"""Stochastic depth that computes the kept records only against the mask: processor time of a step, one thread.

Forward, backward and fused AdamW on a resident batch, coins drawn anew in each step, in turn (A B A B), medians. The
ratio is the mask's time over the subset's; beside it what leaving out the dropped branches can bring at most: all
branches over the kept ones, were they the whole step.

    python benchmarks/subset.py [NAME ...]
"""

import argparse
import time
from statistics import median
from typing import Any

import torch
from in_turn import in_turn, times_as_fast
from step_parts import Ours

from ecg_lightning.stochastic_depth import Mode, branches

NAMES = ("vit", "st_mem_small")
RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"batch of {arguments.batch}, one thread, {arguments.rounds} rounds in turn, medians")
    print("| backbone | over depth | rate | mask, s | subset, s | times as fast | at most |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.names:
        for over_depth in ("linear", "uniform"):
            for rate in arguments.rates:
                compare(name, over_depth, rate, arguments.batch, arguments.rounds)


def compare(name: str, over_depth: Any, rate: float, size: int, rounds: int) -> None:
    """One line; both ways draw the same coins, so that they compute the same records."""
    modes: tuple[Mode, ...] = ("mask", "subset")
    steps = {mode: Ours(name, size, CPU, drop_path=(rate, over_depth, mode)) for mode in modes}
    seconds = in_turn(steps, rounds, warm_up=1, now=time.process_time)
    mask, subset = (median(seconds[mode]) for mode in modes)
    ratio = times_as_fast(seconds["mask"], seconds["subset"])
    rates = [drop.drop_prob for drop in branches(steps["mask"].classifier.backbone)]
    most = len(rates) / sum(1 - one for one in rates)
    print(f"| {name} | {over_depth} | {rate} | {mask:.3f} | {subset:.3f} | {ratio:.2f} | {most:.2f} |", flush=True)


if __name__ == "__main__":
    main()
