"""Writes a small tree of PTB-XL's shape: seeded signals whose frequency tells the superclass, few codes, ten folds."""

import csv
import shutil
import warnings
from pathlib import Path

import numpy as np

with warnings.catch_warnings():  # pandas 3 warns of how wfdb calls it
    warnings.simplefilter("ignore", DeprecationWarning)
    import wfdb

REFERENCES = Path(__file__).parent / "references"
LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
DIAGNOSTIC = ("NORM", "IMI", "NDT", "CRBBB", "LVH")
COLUMNS = (
    *("ecg_id", "patient_id", "age", "sex", "height", "weight", "report", "scp_codes", "validated_by_human"),
    *("baseline_drift", "static_noise", "burst_noise", "electrodes_problems", "extra_beats", "pacemaker"),
    *("strat_fold", "filename_lr", "filename_hr"),
)


def write_ptbxl(
    folder: Path, *, num_records: int = 40, sampling_rate: int = 100, num_time_points: int | None = None, seed: int = 0
) -> None:
    """Writes the table, the statements and the records at ``sampling_rate`` (100 or 500 Hz, 10 s unless told)."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(REFERENCES / "scp_statements.csv", folder)
    random = np.random.default_rng(seed)
    rows = [_row(index, random) for index in range(num_records)]
    write_table(folder, rows)
    num_time_points = num_time_points or 10 * sampling_rate
    column = "filename_lr" if sampling_rate == 100 else "filename_hr"
    (folder / rows[0][column]).parent.mkdir(parents=True, exist_ok=True)
    for index, row in enumerate(rows):
        write_record(folder / row[column], signal(index, sampling_rate, num_time_points, random), sampling_rate)


def signal(index: int, sampling_rate: int, num_time_points: int, random: np.random.Generator) -> np.ndarray:
    """Units of 0.001 mV (time, lead)."""
    time = np.arange(num_time_points)[:, None] / sampling_rate
    wave = 800 * np.sin(2 * np.pi * (2 + 3 * _superclass(index)) * time + np.linspace(0, 1, 12))
    return (wave + random.normal(0, 100, (num_time_points, 12))).astype(np.int16)


def write_record(path: Path, digital: np.ndarray, sampling_rate: int, **changes: object) -> None:
    """Writes ``digital`` (time, lead) as PTB-XL does; ``changes`` go to `wfdb.wrsamp`."""
    arguments: dict[str, object] = {
        "units": ["mV"] * digital.shape[1],
        "sig_name": LEADS[: digital.shape[1]],
        "d_signal": digital.astype(np.int64),
        "fmt": ["16"] * digital.shape[1],
        "adc_gain": [1000.0] * digital.shape[1],
        "baseline": [0] * digital.shape[1],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        wfdb.wrsamp(path.name, fs=sampling_rate, write_dir=str(path.parent), **{**arguments, **changes})


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _superclass(index: int) -> int:
    """Every fold (index % 10) meets every superclass in turn."""
    return (index % 10 + index // 10) % len(DIAGNOSTIC)


def _row(index: int, random: np.random.Generator) -> dict[str, str]:
    codes = {DIAGNOSTIC[_superclass(index)]: 100.0, "AFIB" if random.random() < 0.2 else "SR": 0.0}
    if random.random() < 0.3:
        codes["ABQRS"] = 0.0
    if random.random() < 0.2:
        codes[DIAGNOSTIC[random.integers(1, 5)]] = 50.0
    ecg_id = index + 1
    values = {
        "ecg_id": ecg_id,
        "patient_id": f"{1000 + index % 10 + index // 20 * 10}.0",  # two records of most patients, in one fold
        "age": "" if index == 3 else f"{20 + index}.0",
        "sex": index % 2,
        "scp_codes": codes,
        "report": "sinusrhythmus, unauffällig",
        "validated_by_human": "True",
        "static_noise": " , I-V1,  " if index == 5 else "",
        "strat_fold": index % 10 + 1,
        "filename_lr": f"records100/00000/{ecg_id:05d}_lr",
        "filename_hr": f"records500/00000/{ecg_id:05d}_hr",
    }
    return {name: str(values.get(name, "")) for name in COLUMNS}
