"""WFDB records: what `data.record` reads, with what the header says besides."""

from pathlib import Path

from ecg_lightning.data.formats.recording import Recording, facts_of_comments, make_recording
from ecg_lightning.data.record import read_whole_record
from ecg_lightning.errors import InputError


def read_wfdb(path: Path) -> Recording:
    """Reads the record whose header, ``.hea``, is ``path``; comments of the header become facts.

    Raises:
        InputError: for files that are missing, cut or unreadable, units that are no voltage, missing time points.
    """
    sampling_rate, leads, ecg = read_whole_record(path.with_suffix(""))
    comments = [line for line in _lines(path) if line.startswith("#")]
    return make_recording(path, ecg, sampling_rate, leads, facts_of_comments(comments))


def segments_of(header: Path) -> list[str]:
    """Names of the records that the multi-segment record with this header is made of; none for a plain record."""
    lines = [line for line in _lines(header) if line.strip() and not line.startswith("#")]
    if not lines or "/" not in lines[0].split()[0]:
        return []
    return [line.split()[0] for line in lines[1:]]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): mend its permissions, or leave it out") from error
