"""Files from a web server into partial files: gone on with where it broke off, patient with a busy or slow server.

`requests` keeps connections open (two of three round trips of a small file saved against `urllib.request`) and knows a
hospital's proxies and certificates (HTTPS_PROXY, REQUESTS_CA_BUNDLE); trying again is ours, as the body of a file
may break off, which its own retries do not cover.
"""

import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

import ecg_lightning
from ecg_lightning.data.published import LIST, URL
from ecg_lightning.errors import InputError, UsageError

ATTEMPTS = 10
"""Requests in a row that bring nothing new before a file is given up: about three minutes of an idle server."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 600.0
LARGEST_FILE = 64 * 2**20
"""Bytes; no file of PTB-XL 1.0.3 is a seventh as large, and an endless answer must not fill the disk."""

_NO_SUCH_RANGE = 416
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_SLOWEST = 100
"""Bytes a second over the timeout; slower is as good as stalled."""


class ServerError(InputError):
    """The server as a whole is of no use, not only one of its files."""


class StoppedError(Exception):
    """The download ends before this file is whole."""


class _AgainError(Exception):
    """A request failed in a way that another may not; ``pause`` in seconds where the server named one."""

    def __init__(self, reason: str, *, pause: float | None = None, answered: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.answered = pause, answered


class _Session(requests.Session):
    """Follows redirects within a scheme and from http to https, nowhere else."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None:
            before, after = urlsplit(resp.url).scheme, urlsplit(urljoin(resp.url, target)).scheme
            if after != before and (before, after) != ("http", "https"):
                raise ServerError(
                    f"{resp.url} sends on to {target!r}, from {before} to {after}, which is not followed: name another "
                    "--url"
                )
        return target


class Server:
    """The folder at ``url``, for several threads at once: each has a connection of its own.

    Args:
        url: of http or https.
        timeout: seconds without an answer, or without a byte of it, after which the request is made again.

    Raises:
        UsageError: for another kind of address.
    """

    def __init__(self, url: str, timeout: float) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise UsageError(f"--url is {url!r}, it must be an address of http or https, such as {URL}")
        self.url = url.rstrip("/") + "/"
        self.timeout = timeout
        self._stopped = threading.Event()
        self._own = threading.local()
        self._not_before = 0.0

    def fetch(self, path: str, partial: Path, advance: Callable[[int], object], attempts: int = ATTEMPTS) -> None:
        """Brings a file to ``partial``, which may hold its beginning; ``advance`` is told how many bytes are there.

        A pause that the server asks for (Retry-After) holds all threads. Whether the bytes are right is for the caller
        to see.

        Raises:
            ServerError: when the server cannot be reached, or asks for too long a pause.
            InputError: when it answers, but not with this file.
            StoppedError: after `stop`.
        """
        failures, most = 0, _size(partial)
        advance(most)
        while True:
            self._wait_until(self._not_before)
            try:
                return self._request(path, partial, advance)
            except _AgainError as error:
                failures = 1 if _size(partial) > most else failures + 1
                most = max(most, _size(partial))
                if failures >= attempts:
                    raise self._given_up(path, failures, error) from None
                self._pause(failures, error.pause)

    def stop(self) -> None:
        """Ends what other threads are fetching, at the next byte or the end of a pause."""
        self._stopped.set()

    def _request(self, path: str, partial: Path, advance: Callable[[int], object]) -> None:
        start = _size(partial)
        try:
            with self._session().get(
                self.url + quote(path),
                headers={"Range": f"bytes={start}-"} if start else {},
                stream=True,
                timeout=self.timeout,
            ) as response:
                goes_on = _judge(response, start)
                if start and not goes_on:
                    advance(-start)
                    partial.unlink()
                if not goes_on and response.status_code != 200:
                    raise _AgainError("another range than was asked for", pause=0.0, answered=True)
                with partial.open("ab") as file:
                    self._receive(response, file, advance)
        except (requests.RequestException, HTTPError) as error:
            raise self._judge_failure(error) from None

    def _receive(self, response: requests.Response, file: BinaryIO, advance: Callable[[int], object]) -> None:
        began, received = time.monotonic(), 0
        # read1 gives what has come by now: a transfer that breaks off keeps it, and one that drips is noticed.
        while chunk := response.raw.read1(65536, decode_content=False):
            if self._stopped.is_set():
                raise StoppedError
            file.write(chunk)
            file.flush()  # a kill must not cost what has come
            advance(len(chunk))
            received += len(chunk)
            seconds = time.monotonic() - began
            if seconds > self.timeout and received < _SLOWEST * seconds:
                raise _AgainError(f"{received} bytes in {seconds:.0f} s")
            if file.tell() > LARGEST_FILE:
                raise InputError(f"{response.url} is larger than any file of PTB-XL 1.0.3: name another --url")

    def _session(self) -> requests.Session:
        if not hasattr(self._own, "session"):
            self._own.session = _Session()
            self._own.session.headers.update(
                {
                    "User-Agent": f"ecg-lightning/{ecg_lightning.__version__}",
                    "Accept-Encoding": "identity",  # hashes and ranges are of the files as they are
                }
            )
        session: requests.Session = self._own.session
        return session

    def _pause(self, failures: int, asked: float | None) -> None:
        if asked is not None:
            self._not_before = max(self._not_before, time.monotonic() + asked)
            return
        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        self._wait_until(time.monotonic() + pause * random.uniform(0.5, 1))  # not all threads at one moment

    def _wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0 and not self._stopped.wait(left):
            pass
        if self._stopped.is_set():
            raise StoppedError

    def _judge_failure(self, error: Exception) -> Exception:
        """What to raise for a request that brought no answer, or not the whole of one."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ServerError(
                f"the certificate of {self.url} cannot be verified ({_reason(error)}): where a house has certificates "
                "of its own, name them with REQUESTS_CA_BUNDLE=FILE"
            )
        if isinstance(error, ValueError | requests.TooManyRedirects):  # an address that is none
            return ServerError(f"{self.url} leads nowhere ({_reason(error)}): name another --url")
        return _AgainError(_reason(error))

    def _given_up(self, path: str, failures: int, error: _AgainError) -> InputError:
        kind = InputError if error.answered else ServerError
        return kind(
            f"{self.url}{path} could not be fetched in {failures} tries ({error}): look at the network and its proxy "
            "(HTTPS_PROXY), try later, or name a mirror with --url"
        )


def _judge(response: requests.Response, start: int) -> bool:
    """Whether the answer goes on from ``start``; if not, what is there is of no use."""
    status = response.status_code
    told = f"{response.url} answers {status} {response.reason}"
    if status in _AGAIN:
        raise _AgainError(told, pause=_retry_after(response), answered=True)
    if status == 206:
        return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if status != 200 and not (status == _NO_SUCH_RANGE and start):
        raise InputError(f"{told}: --url must name the folder that holds {LIST}, such as {URL}")
    return False


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, from seconds or a date."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if text.isdigit() else max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:  # none, or neither form
        return None
    if seconds > LONGEST_RETRY_AFTER:
        raise ServerError(
            f"{response.url} answers {response.status_code} and asks to wait {seconds:,.0f} s: run the same command "
            "again then, it goes on, or name a mirror with --url"
        )
    return seconds


def _reason(error: Exception) -> str:
    """The innermost reason, without the objects that the libraries name before it."""
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", cause)).rsplit("): ", 1)[-1]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
