"""Coverage-guided fuzzing of the four readers in `fuzz_targets`; needs atheris, which is no dependency of the project.

    python tests/fuzz/fuzz.py store -max_total_time=1800

Whatever leaves a reader that is no `InputError` is written to ``--findings`` (by default a new folder), once for each
place that it came from, and the search goes on; after a crash, a hang or too much memory it is started anew. Flags of
libFuzzer are passed on. Exit code 1 when anything was found.
"""

import argparse
import hashlib
import random
import re
import resource
import subprocess
import sys
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "fuzz")]

INSTRUMENTED = ["ecg_lightning", "wfdb", "zipfile", "csv", "safetensors"]
"""Packages whose branches guide the search; of torch and numpy, which have too many, what reads headers (`_guided`)."""
MEMORY = 4 << 30
"""Bytes that a reader may ask for above what the process holds at its start."""
FLAGS = ["-timeout=120", "-report_slow_units=60", "-rss_limit_mb=2560", "-max_len=65536", "-print_final_stats=1"]
TIME = "-max_total_time="
RESTARTS = 40


def supervise(target: str, flags: list[str], corpus: Path, findings: Path) -> int:
    """Runs the fuzzer until its time is over, however often it dies; 1 when it found anything."""
    from fuzz_seeds import write_seeds

    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    write_seeds(target, corpus)
    given = [flag for flag in flags if not flag.startswith(TIME)]
    seconds = next((int(flag.removeprefix(TIME)) for flag in flags if flag.startswith(TIME)), 1800)
    end, executions, coverage = time.monotonic() + seconds, 0, ""
    for _ in range(RESTARTS):
        if (left := round(end - time.monotonic())) < 1:
            break
        own = [*FLAGS, f"{TIME}{left}", f"-artifact_prefix={findings}/", *given]
        done, coverage = until_it_ends([target, "--findings", str(findings), "--inside", *own, str(corpus)])
        executions += done
    found = sorted(path.name for path in findings.iterdir() if path.suffix != ".txt")
    print(f"{target}: {executions} executions in {seconds} s, {coverage}, {len(found)} found: {', '.join(found)}")
    return 1 if found else 0


def until_it_ends(arguments: list[str]) -> tuple[int, str]:
    """Executions and coverage of one process of the fuzzer, by what it prints."""
    executions, coverage = 0, ""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as run:
        assert run.stderr is not None
        for line in run.stderr:
            print(line, end="", flush=True)
            if told := re.match(r"#(\d+)\s.*(cov: \d+ ft: \d+)", line):
                executions, coverage = int(told[1]), told[2]
    return executions, coverage


def fuzz(target: str, flags: list[str], findings: Path) -> None:
    """In a process of its own: libFuzzer, until its time is over or it dies."""
    import atheris

    with warnings.catch_warnings(), atheris.instrument_imports(include=INSTRUMENTED):
        warnings.simplefilter("ignore")
        import wfdb  # noqa: F401
        from fuzz_mutators import MUTATORS
        from fuzz_targets import TARGETS, networks

        from ecg_lightning.errors import InputError
    _guided()
    networks()
    warnings.simplefilter("ignore")
    seen: set[str] = set()

    def one_input(content: bytes) -> None:
        with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            try:
                TARGETS[target](content, Path(folder))
            except InputError:
                pass
            except Exception as error:
                keep(content, error)

    def keep(content: bytes, error: Exception) -> None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ecg_lightning/" in frame.filename]
        place = f"{type(error).__name__}_{Path(frames[-1].filename).stem}_{frames[-1].lineno}" if frames else "outside"
        if place not in seen:
            seen.add(place)
            name = findings / f"{place}_{hashlib.sha256(content).hexdigest()[:8]}"
            name.write_bytes(content)
            name.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
            print(f"found {name.name}: {error}", file=sys.stderr, flush=True)

    def mutator(content: bytes, max_size: int, seed: int) -> bytes:
        return MUTATORS[target](content, lambda part, most: atheris.Mutate(part, most), random.Random(seed))[:max_size]

    size = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
    resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    atheris.Setup([sys.argv[0], *flags], one_input, custom_mutator=mutator)
    atheris.Fuzz()


def _guided() -> None:
    """Lets the branches of torch's restricted unpickler and of numpy's readers of headers guide the search as well."""
    import atheris
    import torch._weights_only_unpickler as unpickler
    from numpy.lib import _format_impl
    from numpy.lib import format as npy

    unpickler.Unpickler.load = atheris.instrument_func(unpickler.Unpickler.load)
    for name in ("_read_array_header", "descr_to_dtype", "read_array", "read_magic"):
        guided = atheris.instrument_func(getattr(_format_impl, name))
        for module in (_format_impl, npy):
            setattr(module, name, guided)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["store", "source", "weights", "predictions"])
    parser.add_argument("--findings", type=Path, default=None)
    parser.add_argument("--corpus", type=Path, default=None, help="working corpus, kept between runs where it is named")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    to_findings = options.findings or Path(mkdtemp(prefix=f"findings_{options.target}_"))
    if options.inside:
        fuzz(options.target, rest, to_findings)
    elif find_spec("atheris") is None:
        sys.exit("atheris is not installed: pip install atheris, into an environment that sees this project's")
    else:
        to_corpus = options.corpus or Path(mkdtemp(prefix=f"corpus_{options.target}_"))
        sys.exit(supervise(options.target, rest, to_corpus, to_findings))
