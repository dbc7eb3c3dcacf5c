"""Reads one WFDB record: PTB-XL's own layout at the speed of the disk, anything else through the wfdb library.

Of the 7 ms that wfdb takes for a record of 5000 time points, 5 go into its header; PTB-XL's headers all read alike.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import lead_indices

MILLIVOLTS_PER_UNIT = 0.001
"""What a 1 of an int16 signal is: the resolution of PTB-XL."""

MAX_VALUES = 2**28
"""Values (leads x time points) of the longest record that is read: 12 leads of 500 Hz over twelve hours, 2 GiB."""

# No number of more digits than any header has: Python converts none of thousands.
_RECORD_LINE = re.compile(r"[\w.-]+ (\d{1,9}) (\d{1,9}(?:\.\d{1,20})?) (\d{1,12})(?: .*)?")
_LEAD_LINE = re.compile(
    r"([^\s/]+) 16(?:x1)?(?:\+(\d{1,9}))? 1000(?:\.0+)?(?:\(0\))?/mV \d+ 0 -?\d+ (-?\d{1,9}) 0 (\S.*)"
)
_MISSING = -32768
_MILLIVOLTS = {"mV": 1.0, "uV": 0.001, "µV": 0.001, "V": 1000.0}
_FETCH = (
    "fetch the file again from its source (PTB-XL: `ecg-lightning download --output DIR --verify` finds and mends what "
    "is damaged)"
)


@dataclass(frozen=True)
class _Header:
    """What a header says of its record; ``file``, ``offset`` (bytes) and ``checksums`` are for the fast path only."""

    sampling_rate: float
    num_time_points: int
    leads: tuple[str, ...]
    file: str = ""
    offset: int = 0
    checksums: tuple[int, ...] = ()


def read_record(
    path: str | Path, leads: Sequence[str], sampling_rate: float, num_time_points: int | None = None
) -> NDArray[np.int16] | NDArray[np.float64]:
    """Reads the record at ``path`` (without extension) -> (lead, time), leads in the order asked for.

    Leads are matched by name, case aside. The result is int16 in units of 0.001 mV where the file holds whole units
    of it, as PTB-XL does, and float64 in mV otherwise. Any number of time points will do if none is given.

    Raises:
        InputError: for files that are missing, cut or unreadable, another rate, length or set of leads, a header
            checksum that does not hold, missing time points (NaN).
    """
    path = Path(path)
    header = _plain_header(_header_text(path))
    if header is None:
        header, ecg = _read_with_wfdb(path)
        return whole_units(ecg[_check_header(path, header, leads, sampling_rate, num_time_points)])
    places = _check_header(path, header, leads, sampling_rate, num_time_points)
    digital = _read_plain(path, header)
    return digital if places == list(range(len(digital))) else digital[places]


def read_whole_record(path: str | Path) -> tuple[float, tuple[str, ...], NDArray[np.float64]]:
    """Reads all of the record at ``path`` (without extension): its rate in Hz, its leads, (lead, time) in mV.

    Raises:
        InputError: for files that are missing, cut or unreadable, a header checksum that does not hold, units that
            are no voltage, missing time points (NaN).
    """
    path = Path(path)
    if header := _plain_header(_header_text(path)):
        return header.sampling_rate, header.leads, _read_plain(path, header) / round(1 / MILLIVOLTS_PER_UNIT)
    header, ecg = _read_with_wfdb(path)
    return header.sampling_rate, header.leads, ecg


def header_length(path: str | Path) -> int | None:
    """Number of time points that the header of the record at ``path`` states; None where it cannot be read."""
    try:
        if header := _plain_header(_header_text(Path(path))):
            return header.num_time_points
        return int(_wfdb().rdheader(str(path)).sig_len)
    except Exception:  # whatever is wrong is told when the record is read
        return None


def flat_leads(ecg: NDArray[Any], leads: Sequence[str]) -> list[str]:
    """Names of the leads of ``ecg`` (lead, time) that hold one value throughout."""
    return [lead for lead, flat in zip(leads, (ecg == ecg[:, :1]).all(axis=1), strict=True) if flat]


def _header_text(path: Path) -> str:
    file = path.with_name(path.name + ".hea")
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: {_FETCH}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): mend its permissions, or {_FETCH}") from error


def _plain_header(text: str) -> _Header | None:
    """The header if it is of PTB-XL's plain kind: one file of format 16, 1000 units per mV, baseline 0.

    The .mat files of the PhysioNet challenges are of that kind too, 24 bytes on.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    first = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    rest = [match for line in lines[1:] if (match := _LEAD_LINE.fullmatch(line))]
    if (
        first is None
        or not len(rest) == len(lines) - 1 == int(first[1]) > 0
        or len({match.group(1, 2) for match in rest}) > 1
        or rest[0][1] in (".", "..")
    ):
        return None
    leads, checksums = tuple(match[4] for match in rest), tuple(int(match[3]) for match in rest)
    return _Header(float(first[2]), int(first[3]), leads, rest[0][1], int(rest[0][2] or 0), checksums)


def _check_header(
    path: Path, header: _Header, leads: Sequence[str], sampling_rate: float, num_time_points: int | None
) -> list[int]:
    """Places of the asked leads in the record, once rate, length and leads are what they should be."""
    problems = []
    places: list[int] = []
    if header.num_time_points < 1:
        problems.append(f"it has no time points: {_FETCH}")
    if header.sampling_rate != sampling_rate:
        problems.append(
            f"it has {header.sampling_rate:g} Hz, {sampling_rate:g} Hz are asked for: resample the record, or choose "
            f"a --backbone for {header.sampling_rate:g} Hz"
        )
    elif num_time_points is not None and header.num_time_points != num_time_points:
        problems.append(
            f"it has {header.num_time_points} time points, the other records {num_time_points}, and a store holds one "
            "length: cut or pad it, or leave it out with --on_error skip"
        )
    try:
        places = lead_indices(leads, header.leads)
    except ValueError as error:
        problems.append(f"{error}: name the leads {', '.join(leads)} in its header")
    if problems:
        raise InputError(f"{path}.hea: {joined(problems)}")
    return places


def _read_plain(path: Path, header: _Header) -> NDArray[np.int16]:
    """The values (lead, time) of the record at ``path``, checked."""
    # Turned first: along a lead in one piece the checks take a fifth of the time.
    digital = np.ascontiguousarray(_read_format_16(path.with_name(header.file), header).T)
    _check_values(path, header.leads, digital.min(axis=1, initial=0) == _MISSING, digital, header.checksums)
    return digital


def _read_format_16(file: Path, header: _Header) -> NDArray[np.int16]:
    """The file's values (time, lead), as many as its header says."""
    expected = header.offset + header.num_time_points * len(header.leads) * 2
    try:
        size = file.stat().st_size
        values = np.fromfile(file, "<i2", offset=header.offset) if size == expected else np.zeros(0, "<i2")
    except FileNotFoundError:
        raise InputError(f"{file} does not exist, its header does: {_FETCH}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): mend its permissions, or {_FETCH}") from error
    if size != expected:
        kind = "is cut" if size < expected else "is too long"
        raise InputError(f"{file} {kind}: {size} bytes, its header says {expected}: {_FETCH}")
    return values.reshape(header.num_time_points, len(header.leads))


def _check_values(
    path: Path, leads: Sequence[str], missing: NDArray[np.bool_], digital: NDArray[Any], expected: Sequence[int | None]
) -> None:
    """Refuses missing time points, and sums of ``digital`` (lead, time) that are not those of the header."""
    if missing.any():
        names = ", ".join(lead for lead, gap in zip(leads, missing, strict=True) if gap)
        raise InputError(
            f"{path}: missing time points (NaN) in lead {names}, a network cannot take them: fill them, or leave the "
            "record out"
        )
    sums = digital.sum(axis=1, dtype=np.int64).tolist()
    pairs = zip(leads, sums, expected, strict=True)
    if wrong := [lead for lead, got, told in pairs if told is not None and (got - told) % 65536]:
        raise InputError(f"{path}: the checksum of lead {', '.join(wrong)} is not that of its header: {_FETCH}")


def _read_with_wfdb(path: Path) -> tuple[_Header, NDArray[np.float64]]:
    """Any single-segment record that the wfdb library reads: header and signal (lead, time) in mV."""
    wfdb = _wfdb()
    try:
        _check_claims(path, wfdb.rdheader(str(path), rd_segments=True))
        record = wfdb.rdrecord(str(path), physical=False)
        physical = record.dac()
    except InputError:
        raise
    except Exception as error:  # the library raises nearly every type on damaged files
        raise InputError(f"{path}: wfdb cannot read it ({type(error).__name__}: {error}): {_FETCH}") from error
    if unknown := sorted(set(record.units) - _MILLIVOLTS.keys()):
        raise InputError(f"{path}.hea: units {unknown}, known are {', '.join(_MILLIVOLTS)}: convert the record to mV")
    leads = tuple(name or "" for name in record.sig_name)
    _check_values(path, leads, np.isnan(physical).any(axis=0), record.d_signal.T, record.checksum)
    factors = np.array([_MILLIVOLTS[unit] for unit in record.units])
    return _Header(float(record.fs), int(record.sig_len), leads), np.asarray((physical * factors).T)


def _check_claims(path: Path, header: Any) -> None:
    """Refuses what wfdb would believe, fill or average: sizes beyond its files', gaps, several values a time point."""
    if segments := getattr(header, "segments", None):
        for name, segment in zip(header.seg_name, segments, strict=True):
            if segment is None:
                raise InputError(f"{path}.hea: missing time points (segment {name!r}): leave the record out")
            if segment.sig_len:  # the first may be a mere layout
                read_whole_record(path.with_name(name))  # for its checks; wfdb looks at no checksum of a segment
        return
    files = {name for name in header.file_name or () if name != "~"}
    claimed = (header.sig_len or 0) * (header.n_sig or 0)
    num_bytes = sum(path.with_name(name).stat().st_size for name in files)
    compressed = {"508", "516", "524"} & set(header.fmt or ())
    if claimed > MAX_VALUES or (files and claimed > 8 * num_bytes and not compressed):
        raise InputError(
            f"{path}.hea says {header.sig_len} time points of {header.n_sig} leads, its files have {num_bytes} bytes "
            f"(and at most {MAX_VALUES} values are read): {_FETCH}, or cut the record"
        )
    if any((skew or 0) > (header.sig_len or 0) for skew in header.skew or ()):
        raise InputError(f"{path}.hea: a skew beyond the record's end: {_FETCH}")
    if any(frame != 1 for frame in header.samps_per_frame or ()):
        raise InputError(
            f"{path}.hea: {max(header.samps_per_frame)} values per time point in some leads, wfdb would average them: "
            "convert the record to one rate with WFDB's xform"
        )


def _wfdb() -> ModuleType:
    """The library, imported only for records that need it: it brings pandas, whose newest warns of wfdb's calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wfdb
    return wfdb  # type: ignore[no-any-return]


def whole_units(ecg: NDArray[np.float64]) -> NDArray[np.int16] | NDArray[np.float64]:
    """``ecg`` (lead, time) in mV as int16 where that loses nothing, as it is otherwise."""
    units = ecg / MILLIVOLTS_PER_UNIT
    whole = np.rint(units)
    if np.abs(whole).max() > np.iinfo(np.int16).max or np.abs(units - whole).max() > 1e-6:
        return np.ascontiguousarray(ecg)
    return np.ascontiguousarray(whole.astype(np.int16))
