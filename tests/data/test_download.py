import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ptbxl_server import LIST, RECORD, STATEMENTS, TABLE, digests, left_over, of_rate, run, serving, stall, status

from ecg_lightning import commands
from ecg_lightning.cli import main
from ecg_lightning.data import published
from ecg_lightning.data.download import DownloadReport, told
from ecg_lightning.data.inventory import NAME
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError

# A process that takes the made-up table for PTB-XL's.
PROCESS = """
import sys
from ecg_lightning.cli import main
from ecg_lightning.data import published, download
hashes = dict(zip(sys.argv[1:5:2], sys.argv[2:5:2]))
published.known_hashes = download.known_hashes = lambda: hashes
sys.exit(main(["download", *sys.argv[5:]]))
"""


def start(tree, server, output, *arguments):
    """The real command line in a process of its own."""
    script = output.parent / "process.py"
    script.write_text(PROCESS)
    hashes = digests(tree)
    named = [TABLE, hashes[TABLE], STATEMENTS, hashes[STATEMENTS]]
    flags = ["--output", str(output), "--url", server.url, *arguments]
    return subprocess.Popen(
        [sys.executable, str(script), *named, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c():
    """Tests that were started in the background ignore Ctrl-C, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- what comes ---


@pytest.mark.parametrize("rate", ["100", "500", "both"])
def test_a_download_is_the_published_tree_of_its_rate(tree, server, output, rate):
    report = run(server, output, rate=rate)
    expected = of_rate(tree, rate)
    assert digests(output) == expected
    assert (output / LIST).read_bytes() == (tree / LIST).read_bytes()
    assert (report.num_files, report.num_fetched, report.num_hashed) == (len(expected),) * 3
    assert (report.num_records, report.mended) == (20, [])
    assert report.num_bytes == sum((tree / path).stat().st_size for path in expected)
    assert server.paths == sorted([LIST, *expected])
    assert left_over(output) == []


def test_a_connection_serves_many_files_and_no_more_are_open_than_asked_for(server, output):
    run(server, output, connections=3)
    assert len({one.client for one in server.asked}) <= 3 + 2  # the list's and the table's own


def test_another_rate_is_added_without_fetching_what_is_there(tree, server, output):
    run(server, output)
    server.asked.clear()
    run(server, output, rate="500")
    assert digests(output) == digests(tree)
    assert all(path.startswith("records500") for path in server.paths)


def test_a_second_download_of_a_complete_folder_asks_no_server_and_reads_no_signal(tree, server, output, monkeypatch):
    run(server, output)
    server.asked.clear()
    report = run(server, output)
    assert server.asked == []
    assert (report.num_fetched, report.num_hashed, report.num_files) == (0, 1, len(of_rate(tree)))
    assert report.num_bytes == sum((tree / path).stat().st_size for path in of_rate(tree))


def test_verify_computes_every_hash_without_a_server(server, output):
    run(server, output)
    server.asked.clear()
    report = run(server, output, verify=True)
    assert server.asked == []
    assert (report.num_fetched, report.num_hashed) == (0, report.num_files)


def test_files_that_came_another_way_are_kept_when_their_hash_is_right(tree, server, output):
    shutil.copytree(tree / "records100", output / "records100")
    shutil.copy(tree / TABLE, output / TABLE)
    (output / RECORD).write_bytes((tree / RECORD).read_bytes()[:-5])
    report = run(server, output)
    assert digests(output) == of_rate(tree)
    assert server.paths == sorted([LIST, "LICENSE.txt", "RECORDS", STATEMENTS, RECORD])
    assert [path for path, _ in report.mended] == [RECORD]


def test_the_fetched_tree_goes_through_prepare_to_an_openable_store(server, output, tmp_path, capsys):
    assert main(["download", "--output", str(output), "--url", server.url]) == 0
    printed = capsys.readouterr()
    assert "20 records at 100 Hz, 44 files" in printed.out
    assert printed.err == ""
    last = printed.out.splitlines()[-1]
    assert last == f"next: ecg-lightning prepare --source {output} --output ptbxl-100hz.h5 --backbone vit"
    command = last.removeprefix("next: ecg-lightning ").replace("ptbxl-100hz.h5", str(tmp_path / "store.h5")).split()
    assert main(command) == 0
    store = Store(tmp_path / "store.h5")
    assert (store.num_records, store.verify()) == (20, [])


@pytest.mark.parametrize("rate", ["100", "500", "both"])
def test_the_command_takes_the_rate_and_names_what_comes_next(tree, server, output, capsys, rate):
    assert main(["download", "--output", str(output), "--url", server.url, "--rate", rate, "--verify"]) == 0
    assert digests(output) == of_rate(tree, rate)
    summary, following = capsys.readouterr().out.splitlines()
    assert summary.endswith("fetched now; every hash checked")
    assert ("ptbxl-500hz.h5 --backbone ecgfounder" in following) == (rate == "500")


def test_the_command_goes_to_physionet_unless_told_otherwise():
    assert inspect.signature(commands.download).parameters["url"].default == published.URL


# --- files that change under us, and disks ---


def tamper(path):
    """Changes one byte; size and times stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_verify_finds_a_tampered_file_and_fetches_it_again(tree, server, output):
    run(server, output)
    tamper(output / RECORD)
    server.asked.clear()
    assert run(server, output).num_fetched == 0  # sizes and times tell nothing
    assert server.asked == []
    report = run(server, output, verify=True)
    assert server.paths == [RECORD]
    assert [(name, reason[:24]) for name, reason in report.mended] == [(RECORD, "it was there with sha256")]
    assert digests(output) == of_rate(tree)


def test_a_tampered_table_is_found_without_verify(tree, server, output):
    run(server, output)
    tamper(output / TABLE)
    server.asked.clear()
    assert [path for path, _ in run(server, output).mended] == [TABLE]
    assert server.paths == [TABLE]
    assert digests(output) == of_rate(tree)


def test_a_file_found_wrong_is_not_trusted_when_it_cannot_be_fetched(server, output):
    run(server, output)
    tamper(output / RECORD)
    server.always[RECORD] = status(404)
    for verify in (True, False):
        with pytest.raises(InputError, match="404"):
            run(server, output, verify=verify)


@pytest.mark.parametrize("change", ["cut", "touched", "removed"])
def test_a_file_that_changed_its_size_or_time_is_looked_into_without_verify(tree, server, output, change):
    run(server, output)
    path = output / RECORD
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif change == "touched":
        os.utime(path)
    else:
        path.unlink()
    server.asked.clear()
    report = run(server, output)
    assert report.num_hashed == 2
    assert server.paths == ([] if change == "touched" else [RECORD])
    assert digests(output) == of_rate(tree)


def test_a_list_that_was_changed_in_the_folder_is_fetched_again(tree, server, output):
    run(server, output)
    (output / LIST).write_text((output / LIST).read_text().replace("a", "b"))
    server.asked.clear()
    run(server, output)
    assert server.paths == [LIST]
    assert (output / LIST).read_bytes() == (tree / LIST).read_bytes()


def test_a_journal_that_was_cut_or_spoilt_costs_hashes_only(tree, server, output):
    run(server, output)
    journal = output / NAME
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:20]) + "\0\0\0\n" + "".join(lines[20:30]) + lines[30][:25])
    server.asked.clear()
    report = run(server, output)
    assert (server.asked, report.num_hashed) == ([], 44 - 29 + 1)
    assert run(server, output).num_hashed == 1
    whole = [json.loads(line) for line in journal.read_text().splitlines() if "\0" not in line]
    assert {path for path, *_ in whole} == {LIST, *of_rate(tree)}


def test_a_disk_too_small_is_told_before_the_files_are_fetched(server, output, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3_000_000))
    with pytest.raises(
        InputError, match=r"has 3 MiB free, the 84 files that are missing take 10 MiB: make room, .*one --rate only"
    ):
        run(server, output, rate="both")
    assert server.paths == [LIST]


def test_what_is_there_needs_no_room(server, output, monkeypatch):
    run(server, output)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    run(server, output, verify=True)


def test_a_disk_that_fills_up_is_told(server, output, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written \(\[Errno 28\] No space left on device\): make room"):
        run(server, output)


def test_an_output_that_is_a_file_is_told(server, output):
    output.write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*name another --output"):
        run(server, output)


@pytest.mark.parametrize(
    "wrong", [{"rate": "250"}, {"connections": 0}, {"connections": 33}, {"timeout": 0.0}, {"timeout": float("nan")}]
)
def test_numbers_that_are_none_are_refused(server, output, wrong):
    with pytest.raises(UsageError, match=r"--rate is 100, 500 or both, --connections 1 to 32, --timeout more than 0"):
        run(server, output, **wrong)


@pytest.mark.parametrize("url", ["file:///data/ptbxl/", "physionet.org/files", "ftp://physionet.org/", "https://"])
def test_an_address_of_another_kind_is_refused(tree, output, url, capsys):
    assert main(["download", "--output", str(output), "--url", url]) == 2
    assert f"--url is {url!r}, it must be an address of http or https" in capsys.readouterr().err
    assert not output.exists()


# --- processes that are killed, and two at once ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_download_goes_on_with_what_is_missing(tree, output, number):
    with serving(tree) as server:
        server.always[RECORD] = stall(server, 11_000, 30)
        partial = output / f"{RECORD}.partial"

        def is_stalled():
            return partial.exists() and partial.stat().st_size == 11_000

        process = start(tree, server, output, "--connections", "2")
        wait_until(lambda: sum(1 for _ in output.rglob("*_lr.dat")) >= 15 and is_stalled(), process)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == {signal.SIGINT: 130}.get(number, -number)
        if number == signal.SIGINT:
            assert " of 44 files are there: the same command goes on from them" in err
            assert "ecg-lightning download: interrupted" in err
            assert "Traceback" not in err
        there = {path for path in digests(output) if not path.endswith(".partial")}
        assert RECORD not in there
        assert is_stalled()
        server.always.clear()
        server.asked.clear()
        process = start(tree, server, output)
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        assert set(server.paths) == of_rate(tree).keys() - there
        assert [one.first for one in server.asked if one.path == RECORD] == [11_000]
    assert digests(output) == of_rate(tree)


def test_a_second_process_is_refused_while_the_first_finishes_its_work(tree, output):
    with serving(tree, latency=0.05) as server:
        process = start(tree, server, output, "--connections", "1")
        wait_until(lambda: (output / RECORD).exists() or server.count(LIST), process)
        wait_until(lambda: (output / NAME).exists(), process)
        server.latency = 2.0  # however long the second takes to come up, the first is still at work
        other = start(tree, server, output)
        _, err = other.communicate()
        server.latency = 0.0
        assert other.returncode == 1
        assert f"another process downloads into {output}, one at a time: wait for it" in err
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        assert len(server.asked) == 45
    assert digests(output) == of_rate(tree)


def test_many_mended_files_are_counted():
    report = DownloadReport(Path("ptbxl"), "both", mended=[(f"{number}.hea", "it was wrong") for number in range(25)])
    lines = told(report)
    assert lines[9:11] == ["9.hea: it was wrong, fetched again", "and 15 files more"]
    assert "records at 100 Hz and 500 Hz" in lines[11]


def test_the_bar_shows_files_bytes_rate_and_time_left(tree, server, output, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    run(server, output, progress=True)
    shown = capsys.readouterr().err
    assert "44/44 files" in shown
    assert "MB" in shown
    assert "0:00:00" in shown
