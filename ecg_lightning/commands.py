"""The commands that are not Lightning's: one function each; its signature and docstring are the help."""

import sys
from pathlib import Path
from typing import Any, Literal

from ecg_lightning.errors import UsageError


def download(
    output: str,
    rate: Literal["100", "500", "both"] = "100",
    connections: int = 8,
    url: str = "https://physionet.org/files/ptb-xl/1.0.3/",
    verify: bool = False,
    timeout: float = 30.0,
) -> None:
    """Fetches PTB-XL 1.0.3 (CC BY 4.0) and checks every file; goes on where a stopped download was.

    Args:
        output: folder for the data set; files that are there already are checked and kept.
        rate: records of 100 Hz (0.54 GB), of 500 Hz (2.63 GB) or both; the tables (16 MB) come with each.
        connections: files fetched at once, 1 to 32.
        url: a mirror's folder of version 1.0.3, such as https://physionet-open.s3.amazonaws.com/ptb-xl/1.0.3/;
            over http, anybody on the way could change records unseen.
        verify: compute the hash of every file again, also of those that a former download finished.
        timeout: seconds without a byte after which a request is made again.
    """
    from ecg_lightning.data.download import download as download_ptbxl
    from ecg_lightning.data.download import told

    report = download_ptbxl(
        output,
        rate=rate,
        connections=connections,
        url=url,
        verify=verify,
        timeout=timeout,
        progress=sys.stderr.isatty(),
    )
    print("\n".join(told(report)))


def prepare(
    source: str,
    output: str,
    backbone: str = "vit",
    sizes: dict[str, Any] | None = None,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    kind: Literal["ptbxl", "wfdb", "files", "manifest"] | None = None,
    labels: str | None = None,
    task: str | None = None,
    codes: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 42,
    seconds: float | None = None,
    sampling_rate: float | None = None,
    leads: str | None = None,
    unit: Literal["mV", "uV", "V"] = "mV",
) -> None:
    """Makes a store: the records at the backbone's rate, through the steps before its crop.

    Args:
        source: folder of PTB-XL, as `ecg-lightning download` makes it; or a manifest of your own, a csv with a
            column path, perhaps patient, fold, age, sex and record, and labels of 0, 1 or empty for unknown; or a WFDB
            folder with SNOMED CT codes in its headers (Dx), as in the PhysioNet/CinC Challenge 2021; or, for
            pre-training, a folder of files without labels. All but PTB-XL may hold WFDB, CSV or NPY of any rate and
            length, which is resampled and cut; the report says so.
        output: the store to write, such as ptbxl-100hz.h5; a stopped run goes on where it was.
        backbone: whose signal the store is made for: a registry name, or the class path of one of your own.
        sizes: arguments of the backbone that are not its defaults, such as '{"sampling_rate": 500}'.
        workers: processes; by default one per core where that pays.
        on_error: stop at damaged or short records, or skip them and list them.
        overwrite: replace an existing store.
        kind: of the source; found by looking if left out.
        labels: manifest: the columns that are labels, such as male,afib; all but the six named above if left out.
        task: manifest: name of its task, for --data.task; the csv's name without .csv if left out.
        codes: wfdb: a table of codes of your own, with the columns of ecg_lightning/data/snomed.csv.
        folds: make so many folds by patient where the source has none; 10 if left out.
        fold: put all records into this one fold instead; 10 is the one that test reads.
        seed: of the folds that are made.
        seconds: length of the stored records; what the backbone needs if left out. Longer: windows in training.
        sampling_rate: Hz, of CSV and NPY files that do not say it.
        leads: names in the files' order where they have none, such as I,II,V1.
        unit: of CSV and NPY files that do not say it.
    """
    from ecg_lightning.backbones import backbone_signal
    from ecg_lightning.data.formats import Layout
    from ecg_lightning.data.prepare import prepare as prepare_store
    from ecg_lightning.data.sources import SourceOptions

    said_nothing = sampling_rate is None and leads is None and unit == "mV"
    options = SourceOptions(
        kind=kind,
        layout=None if said_nothing else Layout(sampling_rate=sampling_rate, leads=listed(leads), unit=unit),
        seconds=seconds,
        labels=listed(labels),
        task=task,
        folds=folds,
        fold=fold,
        seed=seed,
        codes=None if codes is None else Path(codes),
    )
    of_source = {
        **{"kind": kind, "labels": labels, "task": task, "codes": codes, "folds": folds, "fold": fold},
        **{"seed": None if seed == 42 else seed, "seconds": seconds, "sampling_rate": sampling_rate, "leads": leads},
        **{"unit": None if unit == "mV" else unit},
    }
    flags = {"backbone": backbone, "on_error": on_error, "sizes": sizes or None, **of_source}
    given = [f"--{name} {value}" for name, value in flags.items() if value is not None]
    command = " ".join(["ecg-lightning", "prepare", *given])
    report = prepare_store(
        source,
        output,
        backbone_signal(backbone, **(sizes or {})),
        workers=workers,
        on_error=on_error,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
        command=command,
        options=options,
    )
    print(f"{report.path}: {report.num_records} records; look into it with: ecg-lightning inspect {report.path}")


def listed(names: str | None) -> tuple[str, ...] | None:
    """Names divided by commas."""
    return None if names is None else tuple(name.strip() for name in names.split(",") if name.strip())


def synthesize(
    output: str,
    records: int,
    seed: int = 0,
    rate: Literal["100", "500", "both"] = "both",
    prevalence: Literal["natural", "uniform"] = "natural",
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes simulated ECGs laid out as PTB-XL: records at both rates, statements, ten folds by patient.

    Args:
        output: the folder to write; a stopped run goes on where it was.
        records: how many; the first ones are the same for any number.
        seed: another seed gives other patients.
        rate: 100 or 500 Hz, or both.
        prevalence: statements as often as in PTB-XL (natural), or each about as often as any other (uniform).
        workers: processes; by default one per core where that pays. The bytes are the same.
        overwrite: replace a simulated archive, or an unfinished one of other settings.
    """
    from ecg_lightning.data.synthesize.archive import synthesize as write_archive

    rates = (100, 500) if rate == "both" else (int(rate),)
    report = write_archive(
        output,
        records,
        seed=seed,
        rates=rates,
        prevalence=prevalence,
        workers=workers,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
    )
    resumed = f", {report.num_resumed} of them from a run that was stopped" if report.num_resumed else ""
    print(f"{report.path}: {report.num_records} simulated records{resumed}; next:")
    print(f"  ecg-lightning prepare --source {report.path} --output {report.path}.h5 --backbone vit")


def inspect(
    target: str | None = None,
    backbone: str | None = None,
    json: bool = False,
    verify: bool = False,
    plot: list[str] | None = None,
    html: bool | str = False,
    output: str | None = None,
    all_records: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Shows what is in a store, a run folder or a backbone; draws ECGs of a store, writes a page about it.

    Args:
        target: a store, a run folder or a file of weights (.safetensors); may be given without the flag.
        backbone: a registry name instead.
        json: print JSON.
        verify: recompute the checksum of every record of a store.
        plot: ids of records of a store, to draw on ECG paper at true scale: --plot 17 42.
        html: write one page on a store: counts, ages, signal quality, twenty ECGs; by default STORE's name with .html.
        output: of --plot: FILE.png, .pdf or .svg; several ECGs become pages of a PDF, or a PNG each (ecg_17.png).
        all_records: of --html: measure the signal quality of every record, not of 5,000 of a larger store.
        seed: of --html: which records are drawn.
        overwrite: of --plot and --html: replace files that are there.
    """
    from ecg_lightning import descriptions, inspection

    if (target is None) == (backbone is None):
        raise UsageError("inspect takes one thing to look at: STORE, RUN or --backbone NAME (before --plot and --html)")
    if looking := plot is not None or bool(html):
        _check_looking(target, plot, json or verify, output)
    elif output is not None:
        raise UsageError("--output names the picture of --plot ECG_ID; a page is named by --html FILE")
    if backbone is not None:
        descriptions.inspect_backbone(backbone, json=json)
    elif descriptions.is_run(str(target)):
        descriptions.inspect_run(str(target), json=json)
    elif str(target).endswith(".safetensors"):
        descriptions.inspect_weights(str(target), json=json)
    elif looking:
        inspection.look_at_store(
            str(target), plot, html, output, all_records=all_records, seed=seed, overwrite=overwrite
        )
    else:
        inspection.inspect_store(str(target), json=json, verify=verify)


def _check_looking(target: str | None, plot: list[str] | None, tables: bool, output: str | None) -> None:
    """Refuses what does not go with ``--plot`` and ``--html``."""
    from ecg_lightning.descriptions import is_run

    if target is None or is_run(target):
        raise UsageError("--plot and --html look at a store: ecg-lightning inspect STORE --plot ECG_ID")
    if tables:
        raise UsageError("--json and --verify belong to the tables that inspect prints: leave out --plot and --html")
    if plot == []:
        raise UsageError("--plot lacks the ids of the records: --plot ECG_ID")
    if plot is None and output is not None:
        raise UsageError(f"--output names the picture of --plot ECG_ID; the page is named so: --html {output}")
