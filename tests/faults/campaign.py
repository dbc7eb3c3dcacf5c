"""Kills runs at random moments and goes on with them until they are done: do they end as if nothing had been?

    python tests/faults/campaign.py [--kills 40] [--seed N] [--folder DIR]

Prints the seed, each kill, and how many left no trace: weights, optimizer, figures and predictions, bit for bit.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faults import WRITES, Fault  # noqa: E402
from made_up_ptbxl import write_ptbxl  # noqa: E402
from processes import differences  # noqa: E402
from short_run import BATCHES, FINE_TUNE, PROBE, Way, finish, fit, make_store, undisturbed_runs  # noqa: E402

WAYS = (Way(1, 0, True), Way(1, 2, False), Way(2, 0, False), Way(2, 2, True), Way(1, 2, True), Way(2, 2, False))
KILLS_OF_A_RUN = 6


class Trial(NamedTuple):
    """A run that was killed as often as it could be, then ended."""

    way: Way
    kills: list[Fault]
    differences: list[str]


def draw(random_: random.Random, way: Way) -> Fault:
    """A moment soon behind the start: a run is killed several times on its way through both phases."""
    kind = random_.random()
    if kind < 0.5:
        return Fault(random_.choice(WRITES), random_.randint(1, 14))
    if kind < 0.8:
        return Fault("batch", random_.randint(1, 6), random_.randrange(way.processes))
    return Fault("time", round(random_.uniform(0.0, 1.5), 3))


def trial(
    store: Path,
    run: Path,
    way: Way,
    undisturbed: Callable[[int, bool], Path],
    random_: random.Random,
    most: int = KILLS_OF_A_RUN,
    say: Callable[[str], object] = print,
) -> Trial:
    """Kills one run up to ``most`` times, each time behind where it had got to, and ends it."""
    kills: list[Fault] = []
    every = str(random_.choice((1, 2, PROBE + FINE_TUNE + BATCHES)))  # the last: at the ends of epochs alone
    done = False
    while len(kills) < most and not done:
        fault = draw(random_, way)
        ended = fit(store, run, way, "--resume", "auto", "--checkpoint_every", every, *fault.flags, timeout=400)
        assert ended.returncode in (0, -9), f"{way}, {fault}: exit code {ended.returncode}\n{ended.stdout}"
        done = ended.returncode == 0
        if not done:
            kills.append(fault)
            say(f"  {tuple(way)} checkpoint every {every}: killed at {fault.moment} {fault.at} (rank {fault.rank})")
    if not done:
        finish(store, run, way, "--checkpoint_every", every)
    return Trial(way, kills, differences(undisturbed(way.processes, way.windows), run))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--folder", type=Path, help="keeps the runs there")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        return campaign(arguments.kills, arguments.seed, arguments.folder or Path(temporary))


def campaign(kills: int, seed: int, folder: Path) -> int:
    """The report; 0 when no kill left a trace."""
    begin, random_ = time.monotonic(), random.Random(seed)
    write_ptbxl(folder / "ptbxl")
    store = make_store(folder / "ptbxl", folder / "store.h5")
    undisturbed = undisturbed_runs(store, folder)
    trials: list[Trial] = []
    while (so_far := sum(len(one.kills) for one in trials)) < kills:
        way, run = WAYS[len(trials) % len(WAYS)], folder / f"run-{len(trials)}"
        one = trial(store, run, way, undisturbed, random_, min(KILLS_OF_A_RUN, kills - so_far), _say)
        trials.append(one)
        _say(f"{tuple(way)}: {len(one.kills)} kills, {'equal' if not one.differences else one.differences}")
    equal = sum(len(one.kills) for one in trials if not one.differences)
    in_writes = sum(fault.moment in WRITES for one in trials for fault in one.kills)
    _say(
        f"{equal} of {so_far} kills left no trace ({in_writes} of them inside writes; {len(trials)} runs; seed {seed}; "
        f"{time.monotonic() - begin:.0f} s)"
    )
    return 0 if equal == so_far else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
