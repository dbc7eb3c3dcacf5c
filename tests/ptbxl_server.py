"""A web server on this machine with a tree of PTB-XL's layout: it writes down what it is asked, and misbehaves as told.

It stands for a server, not for PhysioNet's, which cannot be reached from a test.
"""

import hashlib
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from ecg_lightning.data.download import DownloadReport, download

LIST, TABLE, STATEMENTS = "SHA256SUMS.txt", "ptbxl_database.csv", "scp_statements.csv"
RECORD = "records100/00000/00007_lr.dat"


def write_list(folder: Path) -> None:
    """Writes RECORDS, without the line break that 1.0.3 lacks too, and SHA256SUMS.txt of all that is there."""
    records = {
        rate: sorted(
            path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob(f"records{rate}/*/*.hea")
        )
        for rate in (100, 500)
    }
    (folder / "RECORDS").write_text("\n".join(records[100]) + "\n".join(records[500]) + "\n")
    lines = [f"{digest} {path}\n" for path, digest in sorted(digests(folder).items())]
    (folder / LIST).write_text("".join(lines))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the list and hidden ones."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST and not path.name.startswith(".")
    }


def of_rate(tree: Path, rate: str = "100") -> dict[str, str]:
    """What a download of this rate must leave: SHA-256 by path."""
    other = {"100": "records500", "500": "records100", "both": "none"}[rate]
    return {path: digest for path, digest in digests(tree).items() if not path.startswith(other)}


def run(server: "Server", output: Path, **arguments: Any) -> DownloadReport:
    """A download from this server."""
    return download(output, **{"url": server.url, "progress": False, "timeout": 5.0, **arguments})


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.partial"))


class Asked(NamedTuple):
    path: str
    first: int
    """The first byte asked for; 0 without a range."""
    client: tuple[str, int]
    moment: float


class Server:
    """``faults[path]`` are functions of the handler for the next requests of a path; each is used once."""

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self.folder, self.latency = folder, latency
        self.asked: list[Asked] = []
        self.faults: dict[str, list[Callable[[Any], None]]] = defaultdict(list)
        self.always: dict[str, Callable[[Any], None]] = {}
        self.ranges, self.gone = True, False
        self.url = ""
        self.go_away: Callable[[], None]
        self.good: Callable[..., None]
        self.lock = threading.Lock()

    def count(self, path: str) -> int:
        return sum(one.path == path for one in self.asked)

    def moments(self, path: str) -> list[float]:
        return [one.moment for one in self.asked if one.path == path]

    @property
    def paths(self) -> list[str]:
        return sorted(one.path for one in self.asked)


@contextmanager
def serving(folder: Path, latency: float = 0.0, certificate: Path | None = None) -> Iterator[Server]:
    """A server for a while; over https with a certificate, whose file holds its key as well."""
    server = Server(folder, latency)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            time.sleep(server.latency)
            path = self.path.lstrip("/")
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            with server.lock:
                server.asked.append(Asked(path, first, self.client_address, time.monotonic()))
                fault = server.faults[path].pop(0) if server.faults[path] else server.always.get(path)
            try:
                if not server.gone:
                    (fault or good)(self)
                    self.wfile.flush()
                self.close_connection |= server.gone
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    def good(handler: Any, change: Callable[[bytes], bytes] = bytes, num_bytes: int | None = None) -> None:
        path = server.folder / handler.path.lstrip("/")
        if not path.is_file():
            return status(404)(handler)
        content, asked = change(path.read_bytes()), handler.headers.get("Range")
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if first and first >= len(content):
            return status(416)(handler)
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:] if num_bytes is None else content[first : first + num_bytes])

    def go_away() -> None:
        server.gone = True
        httpd.shutdown()
        httpd.server_close()

    server.good, server.go_away = good, go_away
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    server.url = f"http{'s' if certificate else ''}://127.0.0.1:{httpd.server_address[1]}/"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        go_away()


def status(code: int, **headers: str) -> Callable[[Any], None]:
    """Answers with a status and no file; underscores of header names stand for hyphens."""

    def answer(handler: Any) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def break_off(server: Any, num_bytes: int) -> Callable[[Any], None]:
    """Closes the connection behind so many bytes of the answer."""

    def answer(handler: Any) -> None:
        server.good(handler, num_bytes=num_bytes)
        handler.wfile.flush()
        handler.close_connection = True

    return answer


def stall(server: Any, num_bytes: int, seconds: float) -> Callable[[Any], None]:
    """Falls silent behind so many bytes, with the connection open."""

    def answer(handler: Any) -> None:
        server.good(handler, num_bytes=num_bytes)
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return answer


def chunked(server: Any, num_chunks: int | None = None) -> Callable[[Any], None]:
    """Sends chunks, without a length; all of them and their end, or so many and nothing more."""

    def answer(handler: Any) -> None:
        content = (server.folder / handler.path.lstrip("/")).read_bytes()
        chunks = [content[place : place + 5000] for place in range(0, len(content), 5000)]
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks[:num_chunks]:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if num_chunks is None:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = num_chunks is not None

    return answer


def drip(server: Any, pause: float) -> Callable[[Any], None]:
    """Sends one byte at a time, never silent for long."""

    def answer(handler: Any) -> None:
        content = (server.folder / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for place in range(len(content)):
            handler.wfile.write(content[place : place + 1])
            handler.wfile.flush()
            time.sleep(pause)

    return answer


def wrong_byte(server: Any) -> Callable[[Any], None]:
    """Serves the file with its last byte changed."""
    return lambda handler: server.good(handler, change=lambda content: content[:-1] + bytes([content[-1] ^ 1]))
