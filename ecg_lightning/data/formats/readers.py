"""Finds the records below the given paths, and reads each by its extension."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ecg_lightning.data.formats.arrays import read_array
from ecg_lightning.data.formats.dicom import is_dicom, read_dicom
from ecg_lightning.data.formats.recording import Layout, Recording
from ecg_lightning.data.formats.tables import read_csv
from ecg_lightning.data.formats.wfdb_files import read_wfdb, segments_of
from ecg_lightning.data.formats.xml_files import read_xml
from ecg_lightning.errors import InputError, joined

READERS: dict[str, Callable[[Path, Layout], Recording]] = {
    ".hea": lambda path, layout: read_wfdb(path),
    ".csv": read_csv,
    ".tsv": read_csv,
    ".npy": read_array,
    ".npz": read_array,
    ".xml": lambda path, layout: read_xml(path),
    ".dcm": lambda path, layout: read_dicom(path),
}
_PARTS = (".dat", ".mat")
"""What lies beside a header and belongs to it."""

_CONVERT = "convert it to WFDB, CSV or NPY"
NOT_READ = {
    ".mat": "it has no .hea header beside it: fetch the header too, or save the array as NPY",
    ".dat": "it has no .hea header beside it: fetch the header too",
    ".edf": f"EDF is not read: {_CONVERT}, with WFDB's edf2mit for instance",
    ".bdf": f"BDF is not read: {_CONVERT}",
    ".scp": f"SCP-ECG is not read: export it as HL7 aECG or DICOM, or {_CONVERT}",
    ".ecg": f"ISHNE Holter files are not read: {_CONVERT}, with WFDB's ishne2wfdb for instance",
    ".pdf": "it is a picture of an ECG: export the signal itself from the ECG system, as DICOM for instance",
    ".h5": "HDF5 is a store or another's own layout: save each record as NPY, or give a store to --data.store",
    ".hdf5": "HDF5 is a store or another's own layout: save each record as NPY, or give a store to --data.store",
    ".parquet": "Parquet is not read: save each record as CSV or NPY",
    ".xlsx": "workbooks are not read: save each record as CSV",
    ".pkl": "pickles may run code and are never loaded: save each record as NPY",
    ".pt": "pickles may run code and are never loaded: save each record as NPY",
}
"""Formats of ECGs that turn up and are not read, and what to do."""

_SIGNALS = (".mat", ".dat", ".edf", ".bdf", ".scp", ".ecg")
"""Of these, the ones that would be records left out of a folder; the others may lie beside its records."""


def find_recordings(paths: Sequence[str | Path]) -> list[Path]:
    """The records that ``paths`` name, in the order given; folders are searched to the bottom and sorted.

    A WFDB record is its header: below a folder that holds any ``.hea`` only these are records (not the tables beside
    them), less the segments that another header there is made of. It may also be named by its ``.dat`` or ``.mat``, or
    without extension. Files that hold no signal, such as tables and pictures, and hidden ones are passed over.

    Raises:
        InputError: naming every path that does not exist, holds no record or is of a format that is not read.
    """
    found: dict[Path, None] = {}
    problems: list[str] = []
    for path in map(Path, paths):
        try:
            found.update(dict.fromkeys(_search(path) if path.is_dir() else [_record(path)]))
        except InputError as error:
            problems.append(str(error))
    if problems or not found:
        raise InputError(joined(problems) or "no paths were given: name files or folders of records")
    return list(found)


def read_recording(path: Path, layout: Layout) -> Recording:
    """Reads the file at ``path`` by its extension; ``layout`` says what the file does not.

    Raises:
        InputError: naming the file, for a format that is not read and for all that is wrong with it.
    """
    path = _record(Path(path))
    return READERS[_kind(path)](path, layout)


def _kind(path: Path) -> str:
    """The extension that tells the reader; DICOM is known by its content too."""
    suffix = path.suffix.lower()
    return ".dcm" if suffix not in READERS and suffix not in NOT_READ and is_dicom(path) else suffix


def _record(path: Path) -> Path:
    """The file that stands for the record at ``path``: the header, where it is of WFDB."""
    suffix = path.suffix.lower()
    for header in (path.with_suffix(".hea"), path.with_name(f"{path.name}.hea")):
        if suffix not in READERS and header.is_file() and (suffix in _PARTS or not path.exists()):
            return header
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    if _kind(path) not in READERS:
        why = NOT_READ.get(suffix, f"files {suffix or 'without extension'} are not read: {_CONVERT}")
        raise InputError(f"{path}: {why} (read are {', '.join(READERS)})")
    return path


def _search(folder: Path) -> list[Path]:
    """The records below ``folder``, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if headers := [path for path in files if path.suffix.lower() == ".hea"]:
        segments = {header.with_name(f"{name}.hea") for header in headers for name in segments_of(header)}
        return [header for header in headers if header not in segments]
    if unread := [path for path in files if path.suffix.lower() in _SIGNALS]:
        why = NOT_READ[unread[0].suffix.lower()]
        raise InputError(
            f"{folder} holds {len(unread)} records that are not read, such as {unread[0]}: {why} (or name "
            "the files that are to be read)"
        )
    if records := [path for path in files if _kind(path) in READERS]:
        return records
    raise InputError(f"{folder} holds no records (read are {', '.join(READERS)}): check the path, or {_CONVERT}")
