"""WFDB records: what `data.record` reads, with what the header says besides."""

from pathlib import Path

from ecg_lightning.data.formats.recording import Recording, facts_of_comments, make_recording
from ecg_lightning.data.record import read_whole_record
from ecg_lightning.errors import InputError


def read_wfdb(path: Path) -> Recording:
    """Reads the record whose header, ``.hea``, is ``path``; its comments become facts, and so do ``Time`` and ``Date``.

    Raises:
        InputError: for files that are missing, cut or unreadable, units that are no voltage, missing time points.
    """
    sampling_rate, leads, ecg = read_whole_record(path.with_suffix(""))
    lines = _lines(path)
    facts = facts_of_comments([line for line in lines if line.startswith("#")])
    started = _record_line(lines)[4:6]
    return make_recording(
        path, ecg, sampling_rate, leads, {**dict(zip(("Time", "Date"), started, strict=False)), **facts}
    )


def segments_of(header: Path) -> list[str]:
    """Names of the records that the multi-segment record with this header is made of; none for a plain record."""
    lines = _lines(header)
    if "/" not in "".join(_record_line(lines)[:1]):
        return []
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")][1:]


def _record_line(lines: list[str]) -> list[str]:
    """Name, number of leads, rate, number of time points, and perhaps time and date of the start."""
    return next((line.split() for line in lines if line.strip() and not line.startswith("#")), [])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): mend its permissions, or leave it out") from error
