import hashlib
import socket
import time
from email.utils import formatdate

import pytest
from ptbxl_server import (
    RECORD,
    break_off,
    chunked,
    digests,
    drip,
    left_over,
    of_rate,
    run,
    serving,
    stall,
    status,
    wrong_byte,
)

from ecg_lightning.cli import main
from ecg_lightning.data import server as server_module
from ecg_lightning.errors import InputError


def test_a_file_that_breaks_off_is_gone_on_with_where_it_was(tree, server, output):
    server.faults[RECORD] = [break_off(server, 10_000), break_off(server, 6_000)]
    report = run(server, output)
    assert digests(output) == of_rate(tree)
    assert [one.first for one in server.asked if one.path == RECORD] == [0, 10_000, 16_000]
    assert report.mended == []


def test_a_file_without_a_length_is_read_to_its_end_or_gone_on_with(tree, server, output):
    server.faults[RECORD] = [chunked(server, num_chunks=2)]
    server.faults["LICENSE.txt"] = [chunked(server)]
    run(server, output)
    assert digests(output) == of_rate(tree)
    assert [one.first for one in server.asked if one.path == RECORD] == [0, 10_000]
    assert server.count("LICENSE.txt") == 1


def test_a_server_that_ignores_ranges_sends_the_whole_file_again(tree, server, output):
    server.ranges = False
    server.faults[RECORD] = [break_off(server, 10_000)]
    report = run(server, output)
    assert digests(output) == of_rate(tree)
    assert (server.count(RECORD), report.mended) == (2, [])


def test_a_server_that_answers_with_another_range_is_not_believed(tree, server, output):
    def other_range(handler):
        content = (tree / RECORD).read_bytes()[5:]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 5-{len(content) + 4}/{len(content) + 5}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    server.faults[RECORD] = [break_off(server, 10_000), other_range]
    report = run(server, output)
    assert digests(output) == of_rate(tree)
    assert report.mended == []
    assert [one.first for one in server.asked if one.path == RECORD] == [0, 10_000, 0]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_partial_file_that_is_whole_or_longer_ends_in_the_right_file(tree, server, output, extra):
    partial = output / f"{RECORD}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes((tree / RECORD).read_bytes() + extra)
    report = run(server, output)
    assert digests(output) == of_rate(tree)
    assert left_over(output) == []
    assert report.mended == []


def test_a_partial_file_of_other_content_is_noticed_and_fetched_whole(tree, server, output):
    partial = output / f"{RECORD}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 100)
    run(server, output)
    assert digests(output) == of_rate(tree)
    assert [one.first for one in server.asked if one.path == RECORD] == [100, 0]


def test_a_stalled_transfer_is_asked_for_again_and_keeps_what_had_come(tree, server, output):
    server.faults[RECORD] = [stall(server, 9_000, 3)]
    began = time.monotonic()
    run(server, output, timeout=0.3)
    assert digests(output) == of_rate(tree)
    assert [one.first for one in server.asked if one.path == RECORD] == [0, 9_000]
    assert time.monotonic() - began < 2.9


def test_a_transfer_that_drips_is_as_good_as_stalled(tree, server, output):
    server.faults[RECORD] = [drip(server, 0.05)]
    run(server, output, timeout=0.4)
    assert digests(output) == of_rate(tree)
    assert server.count(RECORD) == 2


def test_one_wrong_byte_is_noticed_named_and_fetched_again(tree, server, output, capsys):
    server.faults[RECORD] = [wrong_byte(server)]
    assert main(["download", "--output", str(output), "--url", server.url]) == 0
    assert digests(output) == of_rate(tree)
    assert server.count(RECORD) == 2
    assert f"{RECORD}: it came with sha256 " in capsys.readouterr().out


def test_a_file_that_is_always_wrong_is_an_error_with_both_hashes_and_the_others_come(tree, server, output, capsys):
    server.always[RECORD] = wrong_byte(server)
    assert main(["download", "--output", str(output), "--url", server.url]) == 1
    told = capsys.readouterr().err
    content = (tree / RECORD).read_bytes()
    wrong = hashlib.sha256(content[:-1] + bytes([content[-1] ^ 1])).hexdigest()
    assert f"{server.url}{RECORD} came 3 times with a wrong hash: sha256 {wrong}, published is" in told
    assert hashlib.sha256(content).hexdigest() in told
    assert "43 of 44 files are there: the same command goes on from them" in told
    assert server.count(RECORD) == 3
    assert digests(output) == {path: d for path, d in of_rate(tree).items() if path != RECORD}
    server.always.clear()
    server.asked.clear()
    run(server, output)
    assert server.paths == [RECORD]


def test_a_file_that_is_not_there_is_named(server, tree, output):
    (tree / RECORD).unlink()
    with pytest.raises(InputError, match=rf"{RECORD} answers 404 Not Found: --url must .*43 of 44 files are there"):
        run(server, output)
    assert server.count(RECORD) == 1


def test_when_nothing_comes_right_it_stops_early(tree, server, output):
    for path in of_rate(tree):
        if path.startswith("records"):
            server.always[path] = status(403)
    with pytest.raises(InputError, match="answers 403"):
        run(server, output, connections=1)
    assert 10 <= len(server.asked) - 5 <= 13


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_request_to_wait_holds_all_connections(tree, server, output, form):
    # A date has whole seconds: this one is more than 1 s away.
    retry_after = "1" if form == "seconds" else formatdate(time.time() + 2.1, usegmt=True)
    server.faults[RECORD] = [status(429, Retry_After=retry_after)]
    run(server, output, connections=4)
    assert digests(output) == of_rate(tree)
    assert server.count(RECORD) == 2
    refused = server.moments(RECORD)[0]
    # What was under way is done by then.
    assert not [one for one in server.asked if refused + 0.4 < one.moment < refused + 0.9]
    assert [one for one in server.asked if one.moment >= refused + 0.9]


def test_a_busy_server_is_asked_again_after_growing_pauses(tree, server, output, monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(server_module, "LONGEST_PAUSE", 60.0)
    monkeypatch.setattr(server_module.random, "uniform", lambda *_: 1.0)
    server.faults[RECORD] = [status(503), status(503)]
    run(server, output)
    assert digests(output) == of_rate(tree)
    first, second, third = server.moments(RECORD)
    assert second - first > 0.19
    assert third - second > 0.39


def test_a_server_that_asks_for_too_long_a_pause_is_told_of_at_once(server, output):
    server.faults[RECORD] = [status(429, Retry_After="7200")]
    began = time.monotonic()
    with pytest.raises(InputError, match=r"answers 429 and asks to wait 7,200 s: run the same command again then"):
        run(server, output)
    assert time.monotonic() - began < 3


def test_a_server_that_is_always_busy_is_an_error_in_the_end(server, output):
    server.always[RECORD] = status(503)
    with pytest.raises(InputError, match=rf"{RECORD} could not be fetched in 10 tries \(.* answers 503 .*43 of 44"):
        run(server, output)
    assert server.count(RECORD) == 10


def test_a_server_that_is_gone_is_told_of_and_leaves_nothing_behind(tree, output, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    assert main(["download", "--output", str(output), "--url", url]) == 1
    told = capsys.readouterr().err
    assert f"{url}SHA256SUMS.txt could not be fetched in 4 tries" in told
    assert "Connection refused" in told
    assert "HTTPS_PROXY" in told
    assert "name a mirror with --url" in told
    assert not output.exists()


def test_a_server_that_goes_away_in_the_middle_ends_the_download_soon(tree, output):
    with serving(tree) as server:
        server.faults[RECORD] = [lambda _: server.go_away()]
        with pytest.raises(InputError, match=r"could not be fetched in 10 tries \(.*\d+ of 44 files are there") as told:
            run(server, output, connections=2)
        assert "Connection refused" in str(told.value)
        fetched = len(server.asked)
    with serving(tree) as server:
        run(server, output)
        assert len(server.asked) + fetched <= 45 + 4  # what was under way is asked for twice
    assert digests(output) == of_rate(tree)


def test_an_endless_answer_does_not_fill_the_disk(tree, server, output, monkeypatch):
    monkeypatch.setattr(server_module, "LARGEST_FILE", 20_000)
    with pytest.raises(InputError, match="is larger than any file of PTB-XL"):
        run(server, output)
    assert not any(path.stat().st_size > 20_000 + 65536 for path in output.rglob("*"))
