"""Runs each step of the Dockerfile in a clean root, where no Docker engine is at hand; needs root and debootstrap.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm BASE
    python tests/container/run_steps.py --base BASE --work WORK -- fit --data.store /data/store.h5 --run /runs/one

A copy of BASE stands in for each FROM; its python is linked to where the python images have theirs. COPY takes what
`.dockerignore` lets through, RUN runs as in an image: the stage's ENV and ARG, its WORKDIR, its USER, nothing of the
host's environment. Then the health check, CMD and the commands behind ``--`` (divided by ``---``) run by the image's
user, and by a uid that the image does not know; at last what lies in the image is looked through. ``--bind`` shows a
folder of the host to the build (an index of packages on disk), ``--put HOST:ROOT`` copies a file in for the build
(pip's own configuration, certificates): neither reaches the last stage.
"""

import argparse
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
FOREIGN_UID = "4242"
BUILD_TOOLS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "cargo", "rustc", "nvcc", "git")
RECORDED = ("VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD", "USER")
"""Instructions that only say how the image is run."""


@dataclass
class Stage:
    """A root in the making, and how what runs in it runs."""

    name: str
    image: str
    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    said: dict[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], *, user: str | None = None, env: dict[str, str] | None = None) -> int:
        """The exit code of ``command`` in this root; ``env`` is what `docker run -e` would add."""
        settings = [f"{name}={value}" for name, value in (self.args | self.env | (env or {})).items()]
        user = user or self.said.get("USER", "0")
        arguments = ["chroot", f"--userspec={user}:{user}", self.root, "/usr/bin/env", "-i", *settings]
        cd = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        return subprocess.run([*map(str, arguments), *cd], check=False).returncode


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and its arguments, lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def pairs(arguments: str, known: dict[str, str]) -> dict[str, str]:
    """``A=1 B="x y"`` with the variables in ``known`` put in."""
    found = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S*)', arguments)}
    return {name: re.sub(r"\$(\w+)", lambda one: known.get(one[1], ""), value) for name, value in found.items()}


def is_let_through(path: str, patterns: Sequence[str]) -> bool:
    """Whether `.dockerignore` lets ``path`` (relative, with slashes) into the context: the last pattern that fits."""
    let = True
    parents = ["/".join(path.split("/")[: end + 1]) for end in range(path.count("/") + 1)]
    for line in patterns:
        pattern = line.removeprefix("!").strip("/")
        if any(_fits(one, pattern) for one in parents):
            let = line.startswith("!")
    return let


def _fits(path: str, pattern: str) -> bool:
    parts, own = path.split("/"), pattern.split("/")
    if own[0] == "**":
        return any(_fits("/".join(parts[start:]), "/".join(own[1:])) for start in range(len(parts)))
    return len(parts) == len(own) and all(map(fnmatch.fnmatchcase, parts, own))


def patterns_of(ignore: Path) -> list[str]:
    """The lines of a `.dockerignore`."""
    return [line.strip() for line in ignore.read_text().splitlines() if line.strip() and not line.startswith("#")]


def copy_in(stage: Stage, arguments: str, stages: dict[str, Stage]) -> None:
    """COPY, from the context or an earlier stage."""
    *sources, target = [word for word in arguments.split() if not word.startswith("--")]
    origin = next((word.partition("=")[2] for word in arguments.split() if word.startswith("--from=")), None)
    patterns = [] if origin else patterns_of(TOP / ".dockerignore")
    for source in sources:
        home = stages[origin].root / source.lstrip("/") if origin else TOP / source
        place = stage.root / (Path(stage.workdir) / target).relative_to("/")
        if home.is_dir():
            shutil.copytree(home, place, symlinks=True, dirs_exist_ok=True, ignore=_left_out(patterns))
        elif is_let_through(source, patterns):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(home, place)


def _left_out(patterns: Sequence[str]) -> Callable[[str, list[str]], set[str]]:
    def left_out(folder: str, names: list[str]) -> set[str]:
        within = Path(folder).relative_to(TOP).as_posix() if patterns else ""
        return {name for name in names if patterns and not is_let_through(f"{within}/{name}", patterns)}

    return left_out


@contextmanager
def mounted(root: Path, binds: Sequence[str]) -> Iterator[None]:
    """What an engine mounts: /proc, 64 MiB of shared memory, the devices; and folders of the host."""
    mounts = [
        ["-t", "proc", "proc", "proc"],
        ["-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", "dev/shm"],
        *(["--bind", bind, bind.lstrip("/")] for bind in binds),
    ]
    with ExitStack() as undo:
        for *how, place in mounts:
            (root / place).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", *how, root / place], check=True)
            undo.callback(subprocess.run, ["umount", root / place], check=True)
        yield


def build(text: str, options: argparse.Namespace, undo: ExitStack) -> Stage:
    """Every instruction in order; the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    last = sum(word == "FROM" for word, _ in instructions(text))
    for word, arguments in instructions(text):
        began = time.monotonic()
        print(f"[{stage.name if stage else '-'}] {word} {arguments}", flush=True)
        if word == "FROM":
            image, _, name = arguments.partition(" AS ")
            stage = begun(name or "image", image, options, undo, with_host=len(stages) + 1 < last)
            stages[stage.name] = stage
            continue
        assert stage is not None
        if word == "ARG":
            stage.args |= pairs(arguments, stage.args | stage.env)
        elif word == "ENV":
            stage.env |= pairs(arguments, stage.args | stage.env)
        elif word == "WORKDIR":
            stage.workdir = arguments
            (stage.root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            copy_in(stage, arguments, stages)
        elif word == "RUN":
            if code := stage.run(["/bin/sh", "-c", arguments]):
                sys.exit(f"exit code {code}")
            print(f"    {time.monotonic() - began:.0f} s", flush=True)
        elif word in RECORDED:
            stage.said[word] = arguments
        else:
            sys.exit(f"{word} is not known here: teach run_steps.py what it does")
    assert stage is not None
    return stage


def begun(name: str, image: str, options: argparse.Namespace, undo: ExitStack, *, with_host: bool) -> Stage:
    """A copy of the base root, with the host's folders and files where it builds."""
    root = options.work / name
    subprocess.run(["cp", "-a", options.base, root], check=True)
    python = root / "usr/local/bin/python"
    if not python.exists():
        python.symlink_to("/usr/bin/python3")
    for place in options.put if with_host else ():
        host, _, inside = place.partition(":")
        (root / inside.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(host, root / inside.lstrip("/"))
    undo.enter_context(mounted(root, options.bind if with_host else ()))
    return Stage(name, image, root)


def look_through(stage: Stage) -> list[str]:
    """What an image of this project must not hold."""
    env = json.loads(stage.said["ENTRYPOINT"])[0]
    path = stage.env["PATH"].split(":")
    within = [Path(folder, tool) for folder in path for tool in BUILD_TOOLS]
    problems = [f"a build tool: {tool}" for tool in within if os.path.lexists(stage.root / str(tool).lstrip("/"))]
    caches = [folder for folder in ("root/.cache", "home/ecg/.cache/pip", "source") if (stage.root / folder).exists()]
    problems += [f"left behind: /{folder}" for folder in caches]
    user = int(stage.said["USER"])
    own = [stage.root / folder for folder in ("home/ecg", "data", "runs")]
    problems += [f"{one.name} is of uid {one.stat().st_uid}" for one in own if one.stat().st_uid != user]
    if not any((stage.root / folder.lstrip("/") / env).exists() for folder in path):
        problems.append(f"no {env} on the PATH")
    if list((stage.root / "opt/venv/bin").glob("pip*")):
        problems.append("pip in /opt/venv")
    return problems


def run_image(stage: Stage, commands: Sequence[Sequence[str]]) -> list[str]:
    """The health check, CMD and ``commands``, by the image's user and by one it does not know; what failed."""
    entrypoint = json.loads(stage.said["ENTRYPOINT"])
    health = json.loads(stage.said["HEALTHCHECK"].partition("CMD")[2])
    failed = []
    for user in (stage.said["USER"], FOREIGN_UID):
        for left in [*(stage.root / "home/ecg").iterdir(), *(stage.root / "tmp").iterdir()]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()  # each container begins with what the image has
        every = [health, [*entrypoint, *json.loads(stage.said["CMD"])], *([*entrypoint, *one] for one in commands)]
        for command in every:
            named = [word.replace("{uid}", user) for word in command]
            print(f"[uid {user}] {' '.join(named)}", flush=True)
            began = time.monotonic()
            code = stage.run(named, user=user, env={"OMP_NUM_THREADS": "1"})
            print(f"    exit code {code}, {time.monotonic() - began:.0f} s", flush=True)
            failed += [f"uid {user}: {' '.join(named)}: exit code {code}"] if code else []
    return failed


def main(argv: Sequence[str]) -> int:
    """Builds, runs, looks through; 0 where all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--put", action="append", default=[], metavar="HOST:ROOT")
    own, _, rest = (list(argv), "", []) if "--" not in argv else _split(argv, "--")
    options = parser.parse_args(own)
    commands: list[list[str]] = [[]]
    for word in rest:
        commands.append([]) if word == "---" else commands[-1].append(word)
    with ExitStack() as undo:
        stage = build((TOP / "Dockerfile").read_text(), options, undo)
        failed = run_image(stage, [command for command in commands if command])
        failed += look_through(stage)
        size = subprocess.run(["du", "-sm", stage.root / "opt/venv"], check=True, capture_output=True, text=True)
        print(f"/opt/venv holds {size.stdout.split()[0]} MiB")
    print("\n".join(failed) or "every step ran, every command ended well, nothing in the image that should not be")
    return 1 if failed else 0


def _split(argv: Sequence[str], mark: str) -> tuple[list[str], str, list[str]]:
    place = list(argv).index(mark)
    return list(argv[:place]), mark, list(argv[place + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
