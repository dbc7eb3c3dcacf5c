"""Every file that the fuzzer found to break a reader, run through that reader again; and that the fuzzer is no toy."""

import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import h5py
import pytest
from fuzz_mutators import MUTATORS, edited_store, sealed_record
from fuzz_seeds import SEEDS
from fuzz_targets import TARGETS, networks, packed, read_predictions, read_store, unpacked

from ecg_lightning.backbones import load_weights
from ecg_lightning.data.record import read_record
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, list[bytes]]:
    return {target: list(make(tmp_path_factory.mktemp(target))) for target, make in SEEDS.items()}


def flipped(part: bytes, most: int) -> bytes:
    """A plain mutation as libFuzzer makes them: one bit."""
    if not part:
        return b"x"
    place = len(part) // 2
    return (part[:place] + bytes([part[place] ^ 1]) + part[place + 1 :])[:most]


@pytest.mark.parametrize("found", FOUND)
def test_what_once_broke_a_reader_is_read_or_refused(found, tmp_path):
    with suppress(InputError):
        TARGETS[found.partition("/")[0]]((CORPUS / found).read_bytes(), tmp_path)


def test_every_target_has_its_seeds_and_its_mutator(seeds):
    assert set(TARGETS) == set(MUTATORS) == {target for target, made in seeds.items() if len(made) > 1}
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


def test_what_once_broke_a_reader_takes_little_memory(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from fuzz_targets import TARGETS, networks\n"
        "from ecg_lightning.errors import InputError\n"
        "networks(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for number, name in enumerate(sys.argv[3:]):\n"
        "    folder = Path(sys.argv[2], str(number)); folder.mkdir()\n"
        "    try: TARGETS[name.partition('/')[0]](Path(sys.argv[1], name).read_bytes(), folder)\n"
        "    except InputError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, CORPUS, tmp_path, *FOUND],
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) < 400  # MiB, of libraries that are loaded on the way for the most part


def test_the_seeds_are_good_files_so_that_the_search_starts_behind_every_check(seeds, tmp_path):
    for number, content in enumerate(seeds["store"]):
        (tmp_path / f"store{number}").mkdir()
        if number == 0:  # the other is filtered, of which the reader says so
            read_store(content, tmp_path / f"store{number}")
    for number, content in enumerate(seeds["predictions"]):
        (tmp_path / f"predictions{number}").mkdir()
        read_predictions(content, tmp_path / f"predictions{number}")
    for number, content in enumerate(seeds["weights"][:4]):
        (tmp_path / f"weights{number}").write_bytes(content)
        load_weights(networks()[0], tmp_path / f"weights{number}")


def test_a_mutated_store_goes_past_its_hashes(seeds, tmp_path):
    chance, past = random.Random(0), 0
    for _ in range(24):
        content = MUTATORS["store"](seeds["store"][0], flipped, chance)
        try:
            read_store(content, tmp_path)
            past += content != seeds["store"][0]
        except InputError as error:
            past += "not what was written" not in str(error)
    assert past > 8


def test_the_mutator_leaves_what_claims_any_size_unread(seeds, tmp_path):
    path = tmp_path / "huge.h5"
    path.write_bytes(seeds["store"][0])
    with h5py.File(path, "r+") as file:
        for name in [name for name in file["records"] if file["records"][name].dtype.itemsize == 1]:
            kind = file["records"][name].dtype
            del file["records"][name]
            file["records"].create_dataset(name, shape=(3 * 10**7,), dtype=kind, chunks=(10**5,))
    content = path.read_bytes()
    tracemalloc.start()
    try:
        for seed in range(20):
            edited_store(content, random.Random(seed))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20


def test_a_mutated_archive_goes_past_its_checksums(seeds, tmp_path):
    chance, told = random.Random(0), []
    for _ in range(60):
        content = MUTATORS["predictions"](seeds["predictions"][0], flipped, chance)
        try:
            read_predictions(content, tmp_path)
        except InputError as error:
            told.append(str(error))
    assert sum("Bad CRC" in one for one in told) < 5
    assert len({one.partition("predictions.npz")[2][:40] for one in told}) > 3


def test_a_record_is_given_the_length_and_the_checksums_of_its_header(seeds, tmp_path):
    files = unpacked(seeds["source"][1])
    changed = {**files, "r.hea": files["r.hea"].replace(b" 16\n", b" 9\n", 1), "r.dat": b"\7" + files["r.dat"]}
    for name, content in sealed_record(changed, "r.hea").items():
        (tmp_path / name).write_bytes(content)
    assert read_record(tmp_path / "r", LEADS_12, 100).shape == (12, 9)


def test_files_are_packed_and_unpacked():
    files = {"r.hea": b"r 1 100 2\n@r\n", "r.dat": b"\0\n@@", "a": b""}
    assert unpacked(packed(files)) == files
    assert unpacked(b"no name") == {"r.hea": b"no name"}
