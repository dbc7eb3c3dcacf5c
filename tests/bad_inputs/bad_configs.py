"""Configs and flags of `fit` that mean nothing, too much, or something else than the reader thinks."""

from bad_row import Make, Row, file

WITH = "fit --config bad.yaml FIT --data.store STORE --run run"
CONFIG = ("bad.yaml",)
MORE = "FIT --data.store STORE --run run"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def yaml(text: str | bytes) -> Make:
    return file("bad.yaml", text)


def flag(name: str, value: str, *says: str) -> Row:
    """A flag of `fit` behind those of a good one."""
    return Row(f"{name} {value}", f"fit {MORE} {name} {value}", (name.removeprefix("--"), *says), code=2)


def size(name: str, value: str) -> Row:
    """A size of the backbone, which does not know what its flag is called."""
    says = ("sizes do not fit", name, "change one of each pair")
    return Row(f"{name} {value}", f"fit {MORE} --model.backbone.{name} {value}", says)


ROWS = (
    Row("an empty list", WITH, (*CONFIG, "holds no mapping, but list"), yaml("[]"), code=2),
    Row("a list", WITH, (*CONFIG, "mapping"), yaml("- model\n- data\n"), code=2, process=True),
    Row("a word", WITH, (*CONFIG, "mapping"), yaml("vit"), code=2),
    Row("a number", WITH, (*CONFIG, "mapping"), yaml("17"), code=2),
    Row("no yaml", WITH, (*CONFIG, "is no YAML", "line 1"), yaml("a: [1, 2"), code=2),
    Row("tabs", WITH, (*CONFIG, "is no YAML", "line 2"), yaml("model:\n\tbackbone: vit\n"), code=2),
    Row("bytes", WITH, CONFIG, yaml(b"\xff\xfe\x00\x80"), code=2),
    Row("an alias of itself", WITH, (*CONFIG, "its aliases (*NAME) hold themselves"), yaml("data: &a\n  train_folds: *a\n"), code=2),
    Row("an alias of itself in a list", WITH, (*CONFIG, "its aliases (*NAME) hold themselves"), yaml("data: {train_folds: &a [*a]}\n"), code=2),
    Row("a billion laughs", WITH, (*CONFIG, "more than 100,000 values"), yaml(LAUGHS), code=2, bounded=True),
    Row("a tag that runs code", WITH, CONFIG, yaml("data: !!python/object/apply:os.system ['touch ran_code']\n"), code=2),
    Row("a key twice", WITH, (*CONFIG, "train_folds stands twice"), yaml("data:\n  train_folds: [1]\n  train_folds: [2]\n"), code=2),
    Row("an unknown group", WITH, (*CONFIG, "colour"), yaml("colour: red\n"), code=2),
    Row("an unknown key", WITH, (*CONFIG, "'data'", "'colour'"), yaml("data: {colour: red}\n"), code=2),
    Row("a group that is a list", WITH, (*CONFIG, "data must hold keys"), yaml("data: [1]\n"), code=2),
    Row("a wrong type", WITH, (*CONFIG, "batch_size"), yaml("data: {batch_size: many}\n"), code=2),
    Row("a folder", "fit --config . FIT --data.store STORE --run run", ("--config .", "shipped are"), code=2),
    flag("--data.batch_size", "0", "0", "1 or more"),
    flag("--data.batch_size", "-4", "-4", "1 or more"),
    flag("--data.batch_size", "1.5", "int"),
    flag("--data.num_workers", "-1", "-1", "0 or more"),
    flag("--data.train_fraction", "0", "0"),
    flag("--data.train_fraction", "nan", "nan"),
    flag("--data.min_likelihood", "101", "101"),
    flag("--data.train_folds", "[]", "train_folds", "empty"),
    flag("--data.val_folds", "[]", "val_folds", "empty"),
    flag("--data.test_folds", "[1]", "fold(s) [1] are in both"),
    flag("--data.train_folds", "[one]", "int"),
    flag("--data.task", "''", "unknown task ''", "superdiagnostic"),
    flag("--data.keep", "some", "keep"),
    size("depth", "0"),
    size("depth", "-2"),
    size("dim", "0"),
    size("heads", "5"),
    size("patch", "[0,0]"),
    size("num_time_points", "-100"),
    flag("--model.backbone", "collections.OrderedDict", "collections.OrderedDict"),
    flag("--model.backbone", "no_such_module.Net", "no_such_module.Net"),
    flag("--model.pos_weight", "heavy", "pos_weight"),
    flag("--post_training.drop_path_rate", "nan", "nan"),
    flag("--post_training.drop_path_rate", "-0.1", "-0.1"),
    flag("--post_training.probe.epochs", "-1", "-1"),
    flag("--post_training.probe.learning_rate", "-1", "-1"),
    flag("--post_training.fine_tune.learning_rate", "nan", "nan"),
    flag("--post_training.fine_tune.layer_decay", "0", "layer_decay"),
    flag("--post_training.fine_tune.schedule", "sawtooth", "schedule"),
    flag("--seed_everything", "-1", "seed"),
    flag("--trainer.devices", "0", "devices"),
    flag("--trainer.accelerator", "teapot", "accelerator", "cpu"),
    flag("--trainer.precision", "7-wrong", "precision"),
    flag("--trainer.strategy", "teapot", "strategy"),
    flag("--trainer.accumulate_grad_batches", "0", "accumulate_grad_batches"),
    flag("--trainer.gradient_clip_val", "-1", "gradient_clip_val"),
    flag("--trainer.limit_train_batches", "0", "limit_train_batches"),
    flag("--trainer.logger", "NoSuchLogger", "NoSuchLogger"),
    flag("--trainer.callbacks", "[collections.OrderedDict]", "callbacks"),
    flag("--checkpoint_every", "-3", "-3"),
    Row("no phase at all", f"fit {MORE} --post_training.probe.epochs=0 --post_training.fine_tune.epochs=0", ("probe.epochs", "fine_tune.epochs"), code=2),
    Row("a run that is a file", f"fit {MORE.replace('--run run', '--run file')}", ("--run file is a file", "choose another name"), file("file", "text"), process=True),
    Row("a run below a file", f"fit {MORE.replace('--run run', '--run file/run')}", ("--run file/run", "it would have to be a folder"), file("file", "text")),
    Row("a run in a folder of something else", f"fit {MORE.replace('--run run', '--run thesis')}", ("--run thesis", "without a run in it"), file("thesis/chapter1.tex", "x")),
)  # fmt: skip
