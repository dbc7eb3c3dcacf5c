"""Which kind of source a path is, and its reader."""

from pathlib import Path

from ecg_lightning.data.labels import check_whole_ptbxl, label_counts
from ecg_lightning.data.ptbxl import STATEMENTS, TABLE, PtbxlTable, read_table
from ecg_lightning.data.sources.source import WORDS, Kind, Source, SourceOptions
from ecg_lightning.data.synthesize.settings import simulation_settings
from ecg_lightning.errors import InputError

_OF_PTBXL = (TABLE, STATEMENTS, "records100", "records500")


def read_source(source: Path, options: SourceOptions, record_rate: float) -> Source:
    """Reads what ``source`` says of its records; ``record_rate`` in Hz decides which of PTB-XL's files are meant.

    The kind is that of ``options``, or found by looking: a file is a manifest, a folder is PTB-XL if it has one of its
    files, a WFDB folder if there is a header below it, and a folder of files otherwise.

    Raises:
        InputError: for a source that is not there or not of the kind asked for, a part of PTB-XL, and all that is
            wrong with it.
    """
    kind = options.kind or _kind(source)
    if options.kind is None and kind in ("wfdb", "files"):
        _refuse_part_of_ptbxl(source, kind)
    if source.exists() and source.is_file() != (kind == "manifest"):
        what = "a folder" if source.is_dir() else "a file"
        raise InputError(
            f"--source {source} is {what}, --kind {kind} is {WORDS[kind]}: name "
            + ("the csv itself" if kind == "manifest" else "the folder, or leave --kind out")
        )
    if kind == "ptbxl":
        return _ptbxl(source, options, record_rate)

    from ecg_lightning.data.sources.folders import read_file_folder, read_wfdb_folder
    from ecg_lightning.data.sources.manifest import read_manifest

    if kind == "manifest":
        return read_manifest(source, options)
    return read_wfdb_folder(source, options) if kind == "wfdb" else read_file_folder(source, options)


def _kind(source: Path) -> Kind:
    if source.is_file():
        return "manifest"
    if not source.is_dir() or any((source / name).exists() for name in _OF_PTBXL):
        return "ptbxl"
    return "wfdb" if next(source.rglob("*.hea"), None) else "files"


def _refuse_part_of_ptbxl(source: Path, kind: Kind) -> None:
    """Read as a folder of its own, each of its records would count as one patient, in any fold."""
    for above in source.resolve().parents[:2]:
        if (above / TABLE).is_file():
            raise InputError(
                f"--source {source} is a part of {above}, whose {TABLE} says the records' labels, patients and folds: "
                f"--source {above}; its files alone, each a patient: --kind {kind}"
            )


def _ptbxl(source: Path, options: SourceOptions, record_rate: float) -> Source:
    """PTB-XL's table, checked against 1.0.3 where it is the whole of it."""
    options.refuse("ptbxl", "layout", "seconds", "labels", "task", "folds", "fold", "codes")
    table = read_table(source)
    records = table.records
    paths = table.filenames["filename_lr" if record_rate == 100 else "filename_hr"]
    folder = source / Path(paths[0]).parts[0]
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist, the records of {record_rate:g} Hz are looked for there: fetch them with "
            f"`ecg-lightning download --output {source} --rate {record_rate:g}`, or choose a --backbone for the rate "
            "that is there"
        )
    attributes = {
        "source_version": _version(source, table),
        "csv_sha256": table.csv_sha256,
        "statements_sha256": table.statements_sha256,
    }
    return Source("ptbxl", source, paths, records, table.likelihood, table.statements, attributes)


def _version(source: Path, table: PtbxlTable) -> str:
    """What the source is; a simulated archive may have as many records as PTB-XL, and is not held against it."""
    if (made_with := simulation_settings(source)) is not None:
        return "simulated: " + ", ".join(f"{name} {made_with.get(name)}" for name in ("seed", "prevalence", "version"))
    records = table.records
    counts = label_counts(table.likelihood, table.statements, records["strat_fold"], records["patient_id"])
    whole = check_whole_ptbxl(counts, table.csv_sha256)
    return "PTB-XL 1.0.3" if whole else "unknown: not the whole of PTB-XL 1.0.3"
