"""Time of the 2-D recurrence of Chimera's reconstruction: the plain double loop against the parallel form.

12 leads x 1000 time points, one thread, in turn (A B A B), medians. The results are held against each other first. A
ratio above 1 says that the parallel form is the faster one.

    python benchmarks/chimera_scan.py [--rounds 5]
"""

import argparse
from functools import partial
from statistics import median

import torch
from in_turn import in_turn

from ecg_lightning.backbones.scan2d import Cells, double_loop, parallel

LEADS, POINTS = 12, 1000
STATE, CHANNELS = 4, 32
"""Those of one head of the default network."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{LEADS} x {POINTS}, {STATE} states x {CHANNELS} channels, one thread; torch {torch.__version__}")
    print(f"{'A1, A2':<12}{'batch':>6}{'loop, s':>10}{'parallel, s':>13}{'ratio':>8}{'largest difference':>22}")
    for structure in ("diagonal", "companion"):
        for batch in (1, 8):
            compare(structure, batch, arguments.rounds)


@torch.no_grad()
def compare(structure: str, batch: int, rounds: int) -> None:
    """One line of the table; the first round warms up and holds the states against each other."""
    cells = random_cells(structure, batch)
    ways = {"loop": double_loop, "parallel": parallel}
    first = {way: run(cells) for way, run in ways.items()}
    difference = max((ours - plain).abs().max().item() for ours, plain in zip(*first.values(), strict=True))
    assert difference < 1e-5, f"the parallel form computes something else, by {difference}"
    seconds = in_turn({way: partial(run, cells) for way, run in ways.items()}, rounds)
    loop, ours = median(seconds["loop"]), median(seconds["parallel"])
    print(f"{structure:<12}{batch:>6}{loop:>10.3f}{ours:>13.4f}{loop / ours:>8.1f}{difference:>22.1e}", flush=True)


def random_cells(structure: str, batch: int) -> Cells:
    """Decays between 0 and 1, couplings within what they leave, as the network makes them."""
    torch.manual_seed(0)
    shape = batch, LEADS, POINTS, STATE, CHANNELS
    a1, a4 = torch.rand(shape), torch.rand(shape)
    a2, a3 = (1 - a1) * (2 * torch.rand(shape) - 1), (1 - a4) * (2 * torch.rand(shape) - 1)
    lags = torch.randn(2, STATE, CHANNELS)
    normed = lags / lags.abs().sum(dim=1, keepdim=True) if structure == "companion" else None
    return Cells(a1, a2, a3, a4, torch.randn(shape), torch.randn(shape), normed)


if __name__ == "__main__":
    main()
