"""Who of several processes died, was stopped or hangs: judged from the signs that each gives of itself."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Sign:
    """What a process says of itself every few seconds, from a thread beside the one that trains."""

    rank: int
    host: str
    space: str
    """What tells two containers of one host apart: in another, ``pid`` means another process."""
    pid: int
    beat: int
    """Counts the signs: one that does not rise comes from a process that is gone or stopped."""
    passed: int
    """Points of the training that all processes pass, and this one has: batches, ends of epochs, checkpoints."""
    still: float
    """Seconds since it passed one of these, or one of its own, such as a batch that it validates."""
    at: str
    """The point, for people."""
    place: str
    """Where its training thread is: file, line and function."""
    waits: bool
    """Whether that is a collective, or a backward pass, in which it waits for the others."""
    ended: str = ""
    """How it ended: one of `INNOCENT`, or the error that ended it."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.rank} (pid {self.pid} on {self.host})"

    def dumped(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loaded(cls, line: str | bytes) -> "Sign":
        """From `dumped`."""
        return cls(**json.loads(line))


DONE, FOLLOWED = "done", "followed another"
INNOCENT = (DONE, FOLLOWED)
"""Ends that nobody is blamed for."""


class Verdict(NamedTuple):
    """Who is to blame, and what is said of it."""

    ranks: tuple[int, ...]
    reason: str
    lives: bool = False
    """Whether they would go on for ever, and must be killed."""


def judged(
    signs: Sequence[Sign], silent: Sequence[float], dead: Collection[int], *, patience: float, silence: float
) -> Verdict | None:
    """What keeps the others from going on; None where nothing does, or not for long enough.

    Args:
        signs: the newest of each process, by rank.
        silent: seconds since each process gave one that was new.
        dead: ranks that are known to have ended, whatever their signs say.
        patience: seconds without passing any point, after which a process hangs; a slow one passes some.
        silence: seconds without a sign, after which a process is gone or stopped.
    """
    for sign in signs:
        if sign.ended in INNOCENT:
            continue
        if sign.rank in dead:
            error = f" with {sign.ended}" if sign.ended else " (killed, by somebody or for want of memory)"
            return Verdict((sign.rank,), f"{sign.name} has ended{error}; last seen at {sign.at}")
        if sign.ended:
            return Verdict((sign.rank,), f"{sign.name} has ended with {sign.ended}; last seen at {sign.at}")
    gone = [sign for sign in signs if silent[sign.rank] > silence and not sign.ended]
    if gone:
        names = ", ".join(sign.name for sign in gone)
        return Verdict(
            tuple(sign.rank for sign in gone),
            f"{names} gave no sign for {silent[gone[0].rank]:.0f} s: stopped, or the machine is gone; last seen at "
            f"{gone[0].at}",
            lives=True,
        )
    at_work = [sign for sign in signs if not sign.ended]
    if not at_work or any(sign.still <= patience for sign in at_work):
        return None  # the one that the others wait for is slow: in the end, a hanging one holds up all
    return _of_hanging(at_work, len(signs))


def _of_hanging(still: Sequence[Sign], num_processes: int) -> Verdict:
    """The others wait for it in a collective, or have passed more points before they had to wait."""
    suspects = [sign for sign in still if not sign.waits] or still
    least = min(sign.passed for sign in suspects)
    suspects = [sign for sign in suspects if sign.passed == least]
    first = suspects[0]
    if len(suspects) == num_processes > 1:
        reason = f"all {num_processes} processes have stood still for {first.still:.0f} s, at {first.at}"
        return Verdict(tuple(sign.rank for sign in suspects), f"{reason}; process 0 in {first.place}", lives=True)
    names = ", ".join(sign.name for sign in suspects)
    return Verdict(
        tuple(sign.rank for sign in suspects),
        f"{names} has stood still for {first.still:.0f} s while the others wait, at {first.at}, in {first.place}",
        lives=True,
    )
