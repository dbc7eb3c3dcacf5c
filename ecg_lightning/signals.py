"""What a network takes as its input, and what a store holds: all that data and backbones share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ecg_lightning.chains import BatchStep, Chain, Crop, RecordStep, Step, WindowFilter, ZScore, rate_behind

LEADS_12 = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True)
class Windows:
    """Where windows are cut when a record is longer than the network's input.

    In training at one ``random`` place (or in the middle); in evaluation at ``count`` places spread evenly from the
    first to the last (one: in the middle), or every ``stride`` time points of the stored record, and the probabilities
    of a record's windows are joined by ``aggregate``.
    """

    train: Literal["random", "centre"] = "random"
    count: int = 1
    stride: int | None = None
    aggregate: Literal["mean", "max"] = "mean"

    def evaluation_starts(self, record_points: int, window_points: int) -> list[int]:
        """First time points of the windows of a record in evaluation."""
        last = record_points - window_points
        if self.stride is not None:
            return list(range(0, last + 1, self.stride))
        if last == 0 or self.count == 1:
            return [last // 2]
        return sorted({round(last * place / (self.count - 1)) for place in range(self.count)})


@dataclass(frozen=True)
class StoredSignal:
    """What a store holds: the rate of its source in Hz, the leads in order, the length, the chain that was run."""

    record_rate: float
    leads: tuple[str, ...]
    num_time_points: int
    chain: Chain = ()

    @property
    def sampling_rate(self) -> float:
        """Rate of what is stored, in Hz."""
        return rate_behind(self.chain, self.record_rate)


@dataclass(frozen=True)
class SignalSpec:
    """What a backbone takes: record rate (Hz), time points of its input, leads by name and in order, chain, windows."""

    record_rate: float
    num_time_points: int
    leads: tuple[str, ...] = LEADS_12
    chain: Chain = (Crop(), ZScore())
    windows: Windows = field(default_factory=Windows)

    def __post_init__(self) -> None:
        crops = [index for index, step in enumerate(self.chain) if isinstance(step, Crop)]
        if len(crops) != 1:
            raise ValueError(f"the chain has {len(crops)} crop steps, it must have one")
        for index, step in enumerate(self.chain):
            if isinstance(step, RecordStep if index > crops[0] else BatchStep):
                raise ValueError(f"step {step.name!r} stands on the wrong side of the crop")
            if isinstance(step, WindowFilter) and step.sampling_rate != self.sampling_rate:
                raise ValueError(f"step {step!r} filters windows of {self.sampling_rate:g} Hz: give it that rate")

    @property
    def stored_chain(self) -> Chain:
        """The steps that `prepare` runs: those before the crop."""
        return self.chain[: self._crop]

    @property
    def batch_chain(self) -> Chain:
        """The steps that run per batch: those behind the crop."""
        return self.chain[self._crop + 1 :]

    @property
    def _crop(self) -> int:
        return next(index for index, step in enumerate(self.chain) if isinstance(step, Crop))

    @property
    def sampling_rate(self) -> float:
        """Rate of the network's input in Hz."""
        return rate_behind(self.chain, self.record_rate)

    @property
    def stored_rate(self) -> float:
        """Rate in Hz at the crop, which is that of a store."""
        return rate_behind(self.stored_chain, self.record_rate)

    @property
    def window_points(self) -> int:
        """Time points that the crop cuts; a chain that decimates behind it makes ``num_time_points`` of them."""
        return round(self.num_time_points * self.stored_rate / self.sampling_rate)

    def misfits(self, stored: StoredSignal) -> list[str]:
        """Why a store of this signal cannot feed the backbone; empty when it can."""
        problems = []
        if stored.record_rate != self.record_rate:
            problems.append(f"it was made from records of {stored.record_rate:g} Hz, not of {self.record_rate:g} Hz")
        if stored.chain != self.stored_chain:
            problems.append(
                f"it holds {_words(stored.chain, stored.sampling_rate)}, not "
                f"{_words(self.stored_chain, self.stored_rate)}"
            )
        missing = [lead for lead in self.leads if lead.upper() not in {have.upper() for have in stored.leads}]
        if missing:
            problems.append(f"it lacks the leads {', '.join(missing)}")
        if stored.chain == self.stored_chain and stored.num_time_points < self.window_points:
            problems.append(f"its records have {stored.num_time_points} time points, not {self.window_points} or more")
        return problems

    def lead_indices(self, leads: Sequence[str]) -> list[int]:
        """Places of the backbone's leads in ``leads``, matched by name, case aside."""
        return lead_indices(self.leads, leads)


def lead_indices(wanted: Sequence[str], have: Sequence[str]) -> list[int]:
    """Place of each wanted lead in ``have``, matched by name, case aside.

    Raises:
        ValueError: naming the leads that are not there, or there twice.
    """
    places: dict[str, int] = {}
    twice = []
    for index, lead in enumerate(have):
        if lead.strip().upper() in places:
            twice.append(lead)
        places[lead.strip().upper()] = index
    missing = [lead for lead in wanted if lead.upper() not in places]
    if missing or twice:
        found = f"leads missing: {', '.join(missing)}" if missing else f"leads given twice: {', '.join(twice)}"
        raise ValueError(f"{found} (found {', '.join(have)})")
    return [places[lead.upper()] for lead in wanted]


def _words(chain: Sequence[Step], rate: float) -> str:
    if not chain:
        return "signals as their records have them"
    return f"signals of {rate:g} Hz, through {' + '.join(step.name for step in chain)}"
