"""Fetches PTB-XL 1.0.3: over several connections, resumable after a kill, every file checked against its hash."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ecg_lightning.data.download_bar import DownloadBar
from ecg_lightning.data.fetching import Outcome, fetch_all
from ecg_lightning.data.inventory import Inventory, sha256_of
from ecg_lightning.data.ptbxl import TABLE
from ecg_lightning.data.published import (
    FOLDERS,
    LIST,
    PARTIAL,
    URL,
    PublishedFile,
    count_records,
    known_hashes,
    read_list,
    select,
)
from ecg_lightning.data.server import Server, ServerError
from ecg_lightning.errors import InputError, UsageError, joined

MOST_CONNECTIONS = 32
_LIST_ATTEMPTS = 4
"""Fewer than for a file: whoever has just started a download is still there."""
_ENOUGH_PROBLEMS = 10


@dataclass
class DownloadReport:
    """What `download` did.

    Attributes:
        folder: where the data set is.
        rate: of its records in Hz: "100", "500" or "both".
        num_records: records of the data set.
        num_files: files of this rate, tables and all.
        num_bytes: bytes of these.
        num_fetched: files that came from the server now.
        num_hashed: files whose hash was computed now, the table always among them; the others are as a former download
            left them, by their size and time of change.
        mended: (path, reason) of files that were there or came with a wrong hash, and are right now.
        seconds: how long it took.
    """

    folder: Path
    rate: str
    num_records: int = 0
    num_files: int = 0
    num_bytes: int = 0
    num_fetched: int = 0
    num_hashed: int = 0
    mended: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def download(
    output: str | Path,
    *,
    rate: str = "100",
    connections: int = 8,
    url: str = URL,
    verify: bool = False,
    timeout: float = 30.0,
    progress: bool = True,
) -> DownloadReport:
    """Brings PTB-XL 1.0.3 into the folder ``output``, as far as it is not there yet.

    A download that was killed goes on where it stopped when called again. Files that came another way are kept when
    their hash is right. On a folder that is complete no server is asked.

    Args:
        output: folder of the data set; its SHA256SUMS.txt and a hidden file of what is finished are kept there too.
        rate: "100", "500" or "both": whose records; the tables come with each.
        connections: to the server, at once.
        url: the server's folder of PTB-XL 1.0.3.
        verify: compute the hash of every file, also of those that a former download finished.
        timeout: seconds without a byte after which a request is made again.
        progress: show a bar on the standard error.

    Raises:
        UsageError: for a rate, a number or an address that is none.
        InputError: for a server or a list of files that is of no use, files that stay wrong, a full disk, a folder with
            another version of the table, a second download into the same folder.
    """
    folder = Path(output)
    if rate not in (*FOLDERS, "both") or not 1 <= connections <= MOST_CONNECTIONS or not timeout > 0:
        raise UsageError(
            f"rate is {rate!r}, connections {connections}, timeout {timeout:g} s: --rate is 100, 500 or both, "
            f"--connections 1 to {MOST_CONNECTIONS}, --timeout more than 0"
        )
    server = Server(url, timeout)
    began = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Inventory(folder) as inventory:
            report = _Run(DownloadReport(folder, rate), server, inventory, connections).run(verify, progress)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error}): make room, or name another --output; the same command goes on from "
            "the files that are finished"
        ) from error
    report.seconds = time.monotonic() - began
    return report


def told(report: DownloadReport) -> list[str]:
    """What a user reads at the end: what was wrong, what is there now, what to do next."""
    lines = [f"{path}: {reason}, fetched again" for path, reason in report.mended[:_ENOUGH_PROBLEMS]]
    if len(report.mended) > _ENOUGH_PROBLEMS:
        lines.append(f"and {len(report.mended) - _ENOUGH_PROBLEMS:,} files more")
    rates = " and ".join(f"{rate} Hz" for rate in FOLDERS if report.rate in (rate, "both"))
    fetched = f"{report.num_fetched:,} fetched now" if report.num_fetched else "complete, nothing fetched"
    hashed = (
        "every hash checked"
        if report.num_hashed == report.num_files
        else f"hashes checked: {report.num_hashed:,}, the other files by size and time (--verify checks every hash)"
    )
    lines.append(
        f"{report.folder}: PTB-XL 1.0.3, {report.num_records:,} records at {rates}, {report.num_files:,} files, "
        f"{report.num_bytes / 1e6:,.0f} MB, {report.seconds:,.0f} s; {fetched}; {hashed}"
    )
    name, backbone = ("ptbxl-500hz.h5", "ecgfounder") if report.rate == "500" else ("ptbxl-100hz.h5", "vit")
    lines.append(f"next: ecg-lightning prepare --source {report.folder} --output {name} --backbone {backbone}")
    return lines


@dataclass
class _Run:
    """One download into a folder that is locked."""

    report: DownloadReport
    server: Server
    inventory: Inventory
    connections: int
    num_right: int = 0

    def run(self, verify: bool, progress: bool) -> DownloadReport:
        try:
            listed = self._get_list()
            files = sorted(select(listed, self.report.rate), key=lambda file: ("/" in file.path, file.path))
            # The table is always looked into, as it says what must be there.
            waiting = [file for file in files if verify or file.path == TABLE or not self.inventory.holds(file)]
            self._check_folder(waiting)
            self.report.num_files, self.report.num_hashed = len(files), len(waiting)
            self._settle(files, waiting, listed, progress)
        except KeyboardInterrupt:
            print(self._standing(), file=sys.stderr)
            raise
        except Exception:
            if not self.inventory.finished:
                self.inventory.remove()
            raise
        return self.report

    def _get_list(self) -> list[PublishedFile]:
        """Reads the list of files, from the folder if a former download left it there."""
        path = self.report.folder / LIST
        known = self.inventory.finished.get(LIST)
        if known is not None and path.is_file() and sha256_of(path) == known.sha256:
            return read_list(path.read_text(encoding="utf-8"), str(path))
        partial = path.with_name(LIST + PARTIAL)
        partial.unlink(missing_ok=True)  # it has no hash that would tell whether its two parts belong together
        try:
            self.server.fetch(LIST, partial, lambda _: None, _LIST_ATTEMPTS)
            files = read_list(partial.read_text(encoding="utf-8", errors="replace"), self.server.url + LIST)
        except InputError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)
        self.inventory.add(LIST, sha256_of(path))
        return files

    def _check_folder(self, waiting: Sequence[PublishedFile]) -> None:
        """Refuses a folder of another version, which would become a mixture, and a disk that is too small."""
        folder = self.report.folder
        if TABLE not in self.inventory.finished and (folder / TABLE).exists():
            got, expected = sha256_of(folder / TABLE), known_hashes()[TABLE]
            if got != expected:
                raise InputError(
                    f"{folder / TABLE} is there already and is not that of PTB-XL 1.0.3 (sha256 {got}, published is "
                    f"{expected}): name another --output, or take it away"
                )
        block = os.statvfs(folder).f_frsize
        missing = [file for file in waiting if not (folder / file.path).exists()]
        needed = sum(-(-file.num_bytes // block) * block for file in missing)
        free = shutil.disk_usage(folder).free
        if missing and free < needed * 1.02 + 2**20:
            raise InputError(
                f"{folder} has {free / 2**20:,.0f} MiB free, the {len(missing):,} files that are missing take "
                f"{needed / 2**20:,.0f} MiB: make room, name an --output on another disk, or fetch one --rate only"
            )

    def _settle(
        self,
        files: Sequence[PublishedFile],
        waiting: Sequence[PublishedFile],
        listed: Sequence[PublishedFile],
        progress: bool,
    ) -> None:
        """Makes every file right; the table first, as it says which records the list must hold."""
        report, left = self.report, {file.path for file in waiting}
        report.num_bytes = sum(self.inventory.finished[file.path].num_bytes for file in files if file.path not in left)
        self.num_right = len(files) - len(waiting)
        with DownloadBar(
            len(files), self.num_right, sum(f.num_bytes for f in waiting), report.num_bytes, progress
        ) as bar:
            self._settle_some([file for file in waiting if file.path == TABLE], bar)
            report.num_records = count_records(report.folder / TABLE, listed, report.rate)
            self._settle_some([file for file in waiting if file.path != TABLE], bar)

    def _settle_some(self, files: Sequence[PublishedFile], bar: DownloadBar) -> None:
        problems: list[str] = []
        try:
            with closing(fetch_all(self.server, self.report.folder, files, self.connections, bar.advance)) as outcomes:
                for outcome in outcomes:
                    if outcome.problem:
                        problems.append(outcome.problem)
                    else:
                        self._note(outcome)
                        bar.file_done(self.num_right, outcome.num_bytes - outcome.file.num_bytes)
                    if len(problems) >= _ENOUGH_PROBLEMS:
                        break
        except ServerError as error:
            problems.append(str(error))
        if problems:
            raise InputError(f"{joined(problems)}. {self._standing()}")

    def _note(self, outcome: Outcome) -> None:
        file, report = outcome.file, self.report
        self.inventory.add(file.path, file.sha256)
        self.num_right += 1
        report.num_bytes += outcome.num_bytes
        report.num_fetched += outcome.fetched
        if outcome.mended:
            report.mended.append((file.path, outcome.mended))

    def _standing(self) -> str:
        return f"{self.num_right:,} of {self.report.num_files:,} files are there: the same command goes on from them"
