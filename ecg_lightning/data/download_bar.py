"""What a download shows while it runs: files, bytes, rate and time left."""

from types import TracebackType


class DownloadBar:
    """A bar on the standard error; a context, for several threads at once.

    Args:
        num_files: of the data set.
        num_right: of these, there already.
        num_waiting_bytes: bytes to come, as far as they are known.
        num_right_bytes: bytes that are there already.
        shown: whether to show it.
    """

    def __init__(
        self, num_files: int, num_right: int, num_waiting_bytes: int, num_right_bytes: int, shown: bool
    ) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.fields[num_right]:,}/{task.fields[num_files]:,} files"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=60,
        )
        self._task = self._progress.add_task(
            "PTB-XL",
            total=num_right_bytes + num_waiting_bytes,
            completed=num_right_bytes,
            num_right=num_right,
            num_files=num_files,
        )

    def __enter__(self) -> "DownloadBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, num_bytes: int) -> None:
        """Bytes that came, or, below 0, that turned out to be of no use."""
        self._progress.advance(self._task, num_bytes)

    def file_done(self, num_right: int, more_bytes: int) -> None:
        """Files that are right by now; one of them had ``more_bytes`` more than was known."""
        # The total stays: rich forgets the rate when it changes.
        self._progress.update(self._task, advance=-more_bytes, num_right=num_right)
