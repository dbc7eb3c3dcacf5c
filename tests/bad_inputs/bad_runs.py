"""Run folders without a part, of another version, damaged, or not runs at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from bad_records import KNOWN, TABLE, RunsCode
from bad_row import Here, Make, Row, both, file
from bad_stores import locked

TEST = "test --run run"
PREDICT = f"predict --run run --records a.csv --output out.csv {KNOWN}"
EMBED = "embed --run run --store STORE --output out.npz"
EXPORT = "export --run run --output out.safetensors"
RECORD = file("a.csv", TABLE)


def config(change: Callable[[dict[str, Any]], object]) -> Make:
    """Another config."""

    def make(here: Here) -> None:
        path = here.run() / "config.yaml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))

    return make


def replaced(name: str, content: str | bytes) -> Make:
    """Another content of one of the run's files."""

    def make(here: Here) -> None:
        here.run()
        here.write(f"run/{name}", content)

    return make


def removed(*names: str) -> Make:
    def make(here: Here) -> None:
        run = here.run()
        for name in names:
            (run / name).unlink()

    return make


def checkpoint(change: Callable[[Path], object], name: str = "finetune-best.ckpt") -> Make:
    return lambda here: change(here.run() / "checkpoints" / name)


def saved_anew(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return save


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def interrupted(here: Here) -> None:
    (here.run() / "state.json").write_text(json.dumps({"state": "interrupted"}))


def of_another_network(content: dict[str, Any]) -> None:
    content["state_dict"] = {"fc.weight": torch.ones(3, 3)}


DAMAGED = ("finetune-best.ckpt", "damaged", "--checkpoint")
CONFIG = ("run/config.yaml",)
NO_RUN = ("--run", "holds no run", "ecg-lightning fit --run")

ROWS = (
    Row("not there", "test --run none", ("none", *NO_RUN), code=2, process=True),
    Row("a file", "validate --run a.csv", ("a.csv", *NO_RUN), RECORD, code=2),
    Row("no name", "test", ("--run",), code=2),
    Row("half a checkpoint, validated", "validate --run run", DAMAGED, checkpoint(halved)),
    Row("no checkpoint, validated", "validate --run run", ("has no checkpoint", "fit"), removed("checkpoints/finetune-best.ckpt", "checkpoints/probe-best.ckpt", "checkpoints/last.ckpt")),
    Row("an unknown flag", "validate --run RUN --colour red", ("colour", "ecg-lightning validate --help"), code=2),
    Row("folds of none", "test --run RUN --data.test_folds []", ("data.test_folds is empty",), code=2),
    Row("a fold that the store has not", "test --run RUN --data.test_folds [77]", ("test_folds [77]", "--data.test_folds")),
    Row("an empty folder", f"{PREDICT.replace('--run run', '--run empty')}", ("empty", *NO_RUN), both(RECORD, lambda here: (here.path / "empty").mkdir()), code=2),
    *(
        Row("no config", command, ("run", *NO_RUN), both(RECORD, removed("config.yaml")), code=2)
        for command in (TEST, PREDICT, EMBED, EXPORT)
    ),
    Row("a config of text", PREDICT, CONFIG, both(RECORD, replaced("config.yaml", "gone"))),
    Row("a config that is no yaml", EXPORT, CONFIG, replaced("config.yaml", "a: [1")),
    Row("a config of bytes", EMBED, CONFIG, replaced("config.yaml", b"\xff\xfe\x00")),
    Row("a config that runs code", PREDICT, CONFIG, both(RECORD, replaced("config.yaml", "model: !!python/object/apply:os.system ['touch ran_code']"))),
    Row("a config without a model", EXPORT, (*CONFIG, "model"), config(lambda content: content.pop("model"))),
    Row("a config whose backbone is a word", PREDICT, CONFIG, both(RECORD, config(lambda content: content["model"].update(backbone="vit")))),
    Row("a config without data", EMBED, (*CONFIG, "data"), config(lambda content: content.pop("data"))),
    Row("a config of a later version", TEST, ("colour",), config(lambda content: content["model"].update(colour="red")), code=2),
    Row("a config of text, tested", TEST, ("config.yaml",), replaced("config.yaml", "gone"), code=2),
    Row("a backbone that is gone", PREDICT, ("gone_module.Net cannot be built", "the run was trained with"), both(RECORD, config(lambda content: content["model"].update(backbone={"class_path": "gone_module.Net"}))), process=True),
    Row("a class that is no backbone", PREDICT, ("os.system cannot be built",), both(RECORD, config(lambda content: content["model"].update(backbone={"class_path": "os.system", "init_args": {"command": "touch ran_code"}})))),
    Row("a backbone of other sizes", EMBED, ("finetune-best.ckpt", "config.yaml"), config(lambda content: content["model"].update(backbone={"class_path": "ecg_lightning.backbones.ViT", "init_args": {"depth": 1, "dim": 6}}))),
    Row("a store that is gone", TEST, ("gone.h5", "does not exist", "--data.store"), config(lambda content: content["data"].update(store="gone.h5"))),
    *(
        Row("half a checkpoint", command, DAMAGED, both(RECORD, checkpoint(halved)))
        for command in (TEST, PREDICT, EMBED, EXPORT)
    ),
    *(
        Row("a checkpoint that runs code", command, DAMAGED, both(RECORD, checkpoint(saved_anew(lambda content: content.update(more=RunsCode())))), process=command == TEST)
        for command in (TEST, PREDICT, EMBED, EXPORT)
    ),
    Row("a checkpoint of another network", PREDICT, ("finetune-best.ckpt", "config.yaml"), both(RECORD, checkpoint(saved_anew(of_another_network)))),
    Row("a checkpoint of another network, tested", TEST, ("finetune-best.ckpt",), checkpoint(saved_anew(of_another_network))),
    Row("a checkpoint without weights", EXPORT, ("finetune-best.ckpt",), checkpoint(saved_anew(lambda content: content.pop("state_dict")))),
    Row("a checkpoint without names of labels", EXPORT, ("finetune-best.ckpt",), checkpoint(saved_anew(lambda content: content.pop("label_names")))),
    Row("no checkpoint", EXPORT, ("has no checkpoint", "fit"), removed("checkpoints/finetune-best.ckpt", "checkpoints/probe-best.ckpt", "checkpoints/last.ckpt")),
    Row("a checkpoint that it has not", f"{TEST} --checkpoint best", ("--checkpoint best does not exist", "finetune-best.ckpt"), lambda here: here.run(), code=2),
    Row("something else as a checkpoint", f"{EXPORT} --checkpoint a.csv", ("--checkpoint a.csv is no checkpoint",), both(RECORD, lambda here: here.run())),
    Row("no frozen backbone", f"{PREDICT} --checkpoint probe-best", ("frozen-backbone.safetensors is missing", "put the file"), both(RECORD, removed("checkpoints/frozen-backbone.safetensors"))),
    Row("a damaged frozen backbone", f"{EMBED} --checkpoint probe-best", ("frozen-backbone.safetensors", "damaged", "put the file"), replaced("checkpoints/frozen-backbone.safetensors", b"\x10")),
    Row("an environment of text", PREDICT, ("environment.json", "--seconds"), both(RECORD, replaced("environment.json", "text")), code=2),
    Row("an environment of a list", PREDICT, ("environment.json", "--seconds"), both(RECORD, replaced("environment.json", "[1]")), code=2),
    Row("a state of a list, inspected", "inspect run", ("state.json",), replaced("state.json", "{")),
    Row("figures of text, inspected", "inspect run --json", ("metrics_test.json",), replaced("metrics_test.json", "{")),
    Row("a run that another process trains", "fit --run run --resume auto", ("--run run is in use by another process", "choose another name"), both(interrupted, locked("run/.lock"))),
    Row("a run that is complete", "fit FIT --data.store STORE --run run", ("--run run holds a run already (complete)", "choose another name"), lambda here: here.run()),
    Row("a report of a damaged checkpoint's metrics", "evaluate run", ("test.npz", "is not a predictions file"), replaced("predictions/test.npz", "text")),
    Row("an output in no folder's place", EXPORT.replace("out.", "a.csv/out."), ("a.csv/out.safetensors", "--output", "it would have to be a folder"), both(RECORD, lambda here: here.run())),
    Row("an output of another kind", EXPORT.replace("out.safetensors", "out.pt"), ("out.pt", ".onnx or .safetensors"), lambda here: here.run(), code=2),
    Row("results that are something else", TEST, ("test.npz", "is not a predictions file"), replaced("predictions/test.npz", "text")),
)  # fmt: skip
