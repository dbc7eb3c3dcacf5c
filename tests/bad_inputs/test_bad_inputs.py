"""Every table of bad inputs, through `main(argv)` in this process; a dozen of the rows again as real processes."""

import json
import os
import re
import shlex
import subprocess
import tracemalloc
from collections import Counter
from pathlib import Path

import bad_configs
import bad_flags
import bad_predictions
import bad_pretrainings
import bad_records
import bad_runs
import bad_stores
import bad_tables
import bad_weights
import pytest
from bad_row import FIT, Here, Row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import run_cli
from tiny import of_lightning_cli

from ecg_lightning.cli import COMMANDS, main
from ecg_lightning.errors import InputError

pytestmark = of_lightning_cli
TABLES = (
    *(bad_configs, bad_flags, bad_predictions, bad_pretrainings, bad_records),
    *(bad_runs, bad_stores, bad_tables, bad_weights),
)
ROWS = [row for table in TABLES for row in table.ROWS]
SIZES = '{"depth": 1, "dim": 6}'
MOST_BYTES = 300 * 2**20
"""That a lie about a size may cost."""


@pytest.fixture(scope="module")
def good(tiny_store, plain_run, ptbxl):
    """A good store, run and source, which no row may change."""
    things = {"STORE": tiny_store, "RUN": plain_run, "PTBXL": ptbxl}
    before = {name: contents(path) for name, path in things.items()}
    yield things
    assert [name for name, path in things.items() if contents(path) != before[name]] == []


@pytest.fixture
def here(good, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield Here(folder, good["STORE"], good["RUN"], good["PTBXL"])
    for opened in bad_stores.OPEN:
        opened.close()
    bad_stores.OPEN.clear()


def contents(path: Path) -> dict[str, bytes | None]:
    """All that lies below a folder, folders as None; or one file."""
    return {
        str(one): one.read_bytes() if one.is_file() else None
        for one in sorted([path, *path.rglob("*")])
        if one.exists()
    }


def arguments(row: Row, good: dict[str, Path]) -> list[str]:
    """The row's command line."""
    words: list[str] = []
    for word in shlex.split(row.command):
        filled = re.sub("^(STORE|RUN|PTBXL)", lambda found: str(good[found[0]]), word)
        words += FIT if word == "FIT" else [SIZES] if word == "SIZES" else [filled]
    return words


def check_message(row: Row, said: str, *lists: Path) -> None:
    """One message, in our own words, that names what is wrong and the way out; of several records in a list."""
    command = row.command.split()[0]
    assert "Traceback" not in said
    assert "--debug shows where" not in said, said
    assert said.count(f"ecg-lightning {command}: ") == (command in COMMANDS), said
    told = "".join([said, *(path.read_text() for path in lists)])
    missing = [word for word in row.says if word not in told]
    assert missing == [], told


def new_files(before: dict[str, bytes | None], folder: Path) -> set[str]:
    """What was made, changed or taken away in the folder."""
    after = contents(folder)
    return {name for name in before.keys() | after.keys() if before.get(name, 0) != after.get(name, 0)}


def allowed(row: Row, here: Here) -> set[str]:
    return {str(here.path / name) for name in row.leaves}


@pytest.mark.parametrize("row", [row for row in ROWS if not row.bounded], ids=str)
def test_bad_input_is_one_message_and_nothing_else(row, here, good, capsys):
    row.make(here)
    before = contents(here.path)
    capsys.readouterr()
    code = main(arguments(row, good))
    said = capsys.readouterr().err
    assert code == row.code, said
    check_message(row, said, *(here.path / name for name in row.leaves if name.endswith(".csv")))
    assert new_files(before, here.path) == allowed(row, here)


@pytest.mark.parametrize("row", [row for row in ROWS if row.bounded], ids=str)
def test_a_lie_about_a_size_is_refused_within_300_megabytes(row, here, good, capsys):
    tracemalloc.start()
    try:
        test_bad_input_is_one_message_and_nothing_else(row, here, good, capsys)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.process], ids=str)
def test_a_process_says_the_same_and_ends_with_the_same_code(row, here, good):
    row.make(here)
    before = contents(here.path)
    ended = run_cli(*arguments(row, good))
    assert ended.returncode == row.code, ended.stdout
    check_message(row, ended.stdout, *(here.path / name for name in row.leaves if name.endswith(".csv")))
    assert new_files(before, here.path) == allowed(row, here)


def test_every_command_has_several_rows_and_some_are_run_as_processes():
    per_command = Counter(row.command.split()[0] for row in ROWS)
    assert min(per_command[command] for command in COMMANDS) >= 3, per_command
    assert len(ROWS) >= 120
    assert sum(row.process for row in ROWS) >= 12


def test_debug_shows_the_traceback_of_a_row(here):
    with pytest.raises(InputError, match=r"store none\.h5 does not exist"):
        main(["inspect", "none.h5", "--debug"])


@pytest.fixture
def read_only(here):
    """A folder that refuses everybody, root too: a tmpfs mounted read-only."""
    folder = here.path / "read_only"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        if os.geteuid() == 0:
            pytest.skip(f"no read-only folder can be mounted here: {mounted.stderr.strip()}")
        folder.chmod(0o500)
    yield folder
    if mounted.returncode:
        folder.chmod(0o700)
    else:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "prepare --source PTBXL --output read_only/new.h5",
        "fit FIT --data.store STORE --run read_only/run",
        "embed --run RUN --store STORE --output read_only/out.npz",
        "export --run RUN --output read_only/out.safetensors",
        "evaluate RUN --draws 100 --output read_only/out.json",
        "predict --run RUN --records PTBXL/records100/00000/00001_lr.hea --output read_only/out.csv",
        "report RUN --output read_only/report",
        "inspect STORE --html read_only/page.html",
        "synthesize --output read_only/new --records 3",
        "download --output read_only/ptbxl --url http://127.0.0.1:9/",
        "demo --output read_only/demo",
    ],
    ids=lambda command: command.split()[0],
)
def test_a_read_only_folder_is_named_and_left_alone(command, read_only, here, good, capsys):
    row = Row("read-only", command, ("read_only",))
    code = main(arguments(row, good))
    said = capsys.readouterr().err
    assert code == 1
    check_message(row, said)
    assert re.search(r"[Rr]ead-only", said), said
    assert [*here.path.iterdir()] == [read_only]
    assert not any(read_only.iterdir())


def test_a_read_only_folder_is_told_before_anything_is_computed(read_only, here, good, capsys):
    row = Row("read-only", "embed --backbone no_such_network --store STORE --output read_only/out.npz", ())
    assert main(arguments(row, good)) == 1
    assert "--output read_only/out.npz" in capsys.readouterr().err


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_a_store_is_told_by_verify_or_changes_nothing(place, bit, here, capsys):
    path = here.store()
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    capsys.readouterr()
    code = main(["inspect", "store.h5", "--verify", "--json"])
    said = capsys.readouterr()
    if code == 0:  # in room that HDF5 leaves between data sets
        assert json.loads(said.out)["damaged_records"] == []
    else:
        check_message(Row("flipped", "inspect store.h5", ("store.h5",)), said.err)
