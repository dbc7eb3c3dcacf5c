"""`prepare` against the plain way, and what a record costs: an estimate for all of PTB-XL, bound by disk or by decode.

    OMP_NUM_THREADS=1 python benchmarks/prepare.py --source PTBXL [PTBXL500 ...] --workers 2 --rounds 5

First a loop over wfdb.rdrecord that writes into HDF5, one process, against the command's function: in turn (A B A B),
in processes of their own so that each pays for its imports; medians of the wall times.

Then, in this process, one core, microseconds a record, medians: reading the files from the disk (the system's memory of
them dropped before) and from memory, the raw reader (which checks the sums of the header: held to it here), wfdb,
writing what is stored, and both ways as a whole without imports. Processor time where a core is what counts, which a
busy machine does not change; wall time for the disk. The disk of a virtual machine may be a memory further away.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import wfdb
from rich.console import Console
from rich.table import Table

from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.record import read_record
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, SignalSpec

PTBXL_RECORDS = 21_799
OURS = """
import sys
from ecg_lightning.data.prepare import prepare
from ecg_lightning.signals import SignalSpec
if __name__ == "__main__":
    source, output, rate, workers = sys.argv[1:]
    spec = SignalSpec(float(rate), 10 * int(rate))
    prepare(source, output, spec, workers=int(workers) or None, progress=False)
"""


def plain(source: str, output: str, column: str) -> None:
    """The loop that everybody writes."""
    with open(f"{source}/ptbxl_database.csv", newline="", encoding="utf-8") as file:  # noqa: PTH123
        names = [row[column] for row in csv.DictReader(file)]
    with h5py.File(output, "w") as store:
        for index, name in enumerate(names):
            ecg = wfdb.rdrecord(f"{source}/{name}").p_signal.T
            if index == 0:
                signals = store.create_dataset("signals", (len(names), *ecg.shape), "f4")
            signals[index] = ecg


# --- both ways, imports included ---


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    return time.perf_counter() - started


def both_ways(source: Path, workers: int, rounds: int) -> tuple[float, float]:
    """Median seconds of the plain loop and of `prepare`."""
    rate, column = _rate_and_column(source)
    loop, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "ours.py"
        script.write_text(OURS)
        for turn in range(rounds):
            loop.append(seconds(__file__, "--source", str(source), "--plain", f"{folder}/plain{turn}.h5", column))
            ours.append(seconds(str(script), str(source), f"{folder}/ours{turn}.h5", str(rate), str(workers)))
    return statistics.median(loop), statistics.median(ours)


def _rate_and_column(source: Path) -> tuple[int, str]:
    return (100, "filename_lr") if (source / "records100").is_dir() else (500, "filename_hr")


# --- what a record costs ---


def costs(source: Path, rounds: int, folder: Path) -> dict[str, float]:
    """Microseconds a record of each part."""
    rate, column = _rate_and_column(source)
    with (source / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        paths = [source / row[column] for row in csv.DictReader(file)]
    files = [path.with_suffix(end) for path in paths for end in (".hea", ".dat")]
    ecgs = [read_record(path, LEADS_12, rate) for path in paths]
    spec = SignalSpec(rate, 10 * rate)
    wall, processor = time.perf_counter, time.process_time
    parts: dict[str, tuple[Callable[[], object], Callable[[], float]]] = {
        "files from the disk": (lambda: [file.read_bytes() for file in files], wall),
        "files from memory": (lambda: [file.read_bytes() for file in files], processor),
        "raw reader": (lambda: [read_record(path, LEADS_12, rate) for path in paths], processor),
        "wfdb": (lambda: [wfdb.rdrecord(str(path)).p_signal for path in paths], processor),
        "crc and write": (lambda: _write(folder / "written", [ecg.tobytes() for ecg in ecgs]), processor),
        "crc, write, fsync": (lambda: _write(folder / "written", [ecg.tobytes() for ecg in ecgs], sync=True), wall),
        "plain loop": (lambda: plain(str(source), str(folder / "plain.h5"), column), processor),
        "prepare": (
            lambda: prepare(source, folder / "ours.h5", spec, workers=1, progress=False, overwrite=True),
            processor,
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, (run, clock) in parts.items():
            if name == "files from the disk":
                _forget(files)
            started = clock()
            run()
            if turn:  # the first warms up
                found[name].append((clock() - started) / len(paths) * 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


def _write(path: Path, records: Sequence[bytes], sync: bool = False) -> None:
    """As `prepare` does: one write a record, at its place."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for row, data in enumerate(records):
        zlib.crc32(data)
        os.pwrite(descriptor, data, row * len(data))
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)


def _forget(files: Sequence[Path]) -> None:
    """Drops what the system holds of the files in memory."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def hold_to_its_checksums(source: Path, folder: Path) -> None:
    """One bit of one record, the other way round: the raw reader must refuse it, or it is compared with less work."""
    rate, _ = _rate_and_column(source)
    header = next(source.glob(f"records{rate}/*/*.hea"))
    for end in (".hea", ".dat"):
        shutil.copy(header.with_suffix(end), folder)
    copy = folder / header.with_suffix(".dat").name
    copy.write_bytes(copy.read_bytes()[:-1] + bytes([copy.read_bytes()[-1] ^ 1]))
    try:
        read_record(copy.with_suffix(""), LEADS_12, rate)
    except InputError as error:
        if "checksum" in str(error):
            return
    raise AssertionError("a flipped bit was read without a word")


def estimate(found: dict[str, float]) -> list[str]:
    """Minutes for all of PTB-XL on one core, and what they are bound by."""
    minutes = {name: microseconds * PTBXL_RECORDS / 6e7 for name, microseconds in found.items()}
    disk = minutes["files from the disk"] + minutes["crc, write, fsync"]
    return [
        f"{found['wfdb'] / found['raw reader']:.1f}",
        f"{found['plain loop'] / found['prepare']:.1f}",
        f"{minutes['prepare']:.2f}",
        f"{minutes['plain loop']:.2f}",
        f"{disk:.2f}",
        "disk" if disk > minutes["prepare"] else "decode",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=2, help="0: as `prepare` decides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(str(arguments.source[0]), *arguments.plain)
        return
    both = Table("source", "workers", "wfdb loop (s)", "prepare (s)", "ratio", title="both ways, imports included")
    parts: dict[str, dict[str, float]] = {}
    for source in arguments.source:
        loop, ours = both_ways(source, arguments.workers, arguments.rounds)
        both.add_row(source.name, str(arguments.workers or "auto"), f"{loop:.2f}", f"{ours:.2f}", f"{loop / ours:.1f}")
        with tempfile.TemporaryDirectory() as folder:
            hold_to_its_checksums(source, Path(folder))
            parts[source.name] = costs(source, arguments.rounds, Path(folder))
    Console().print(both)
    print_costs(parts)


def print_costs(parts: dict[str, dict[str, float]]) -> None:
    """Microseconds of each part, then the estimate, as Markdown."""
    print(f"\n| us a record | {' | '.join(parts)} |\n|---|{'---|' * len(parts)}")
    for name in next(iter(parts.values())):
        print(f"| {name} | {' | '.join(f'{found[name]:,.0f}' for found in parts.values())} |")
    print(f"\n| {PTBXL_RECORDS:,} records, one core | {' | '.join(parts)} |\n|---|{'---|' * len(parts)}")
    rows = ("raw reader, times wfdb", "prepare, times the loop", "prepare, minutes", "loop, minutes", "disk, minutes")
    for name, cells in zip((*rows, "bound by"), zip(*map(estimate, parts.values()), strict=True), strict=True):
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
