"""Published figures of a backbone, told only where they were measured by the protocol of the runs beside them."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from ecg_lightning.backbones import Card, backbone_card, backbone_class
from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.run_files import ReadRun

_FOLDS = "folds 1-8 / 9 / 10"
"""How a card says that a figure has PTB-XL's own protocol."""
_AS_PUBLISHED = {"subdiagnostic": "subclass", "superdiagnostic": "superclass"}
"""Tasks that are published, and stand in the cards, under another name."""


class Published(NamedTuple):
    """One figure of a card."""

    backbone: str
    task: str
    metric: str
    value: float
    way: str
    """How it was trained: the first words of its protocol."""
    protocol: str
    source: str
    kind: tuple[str, ...]
    """Of the table that it may stand in: `Judged.kind`."""


def card_of(run: ReadRun) -> Card | None:
    """The card of a run's backbone; None for a network of the user's own."""
    path = str(run.setting("model.backbone.class_path", ""))
    try:
        name = backbone_class(path).registered_name
        return None if name is None else backbone_card(name)
    except InputError:
        return None


def published_beside(judged: Sequence[Judged]) -> tuple[list[Published], list[str]]:
    """Figures that may stand beside ours, and why others do not, by backbone and task."""
    shown: dict[Hashable, list[Published]] = {}
    reasons: dict[str, None] = {}
    for one in judged:
        card = card_of(one.group.first)
        if card is None or not card.published:
            name = "a network of one's own" if card is None else card.name
            reasons[f"{name}: its card has no published figures"] = None
            continue
        if why := differs_from_ptbxl(one.group.first, one.files[0]):
            reasons[f"{card.name}, {one.group.task}: {'; '.join(why)}"] = None
            continue
        found, others = _figures(card, one.group.task, one.kind)
        shown[card.name, one.group.task, one.kind] = found
        reasons |= dict.fromkeys(others)
    return [figure for figures in shown.values() for figure in figures], [*reasons]


def differs_from_ptbxl(run: ReadRun, test: Predictions) -> list[str]:
    """In what a run is not of PTB-XL's own protocol: all of 1.0.3, folds 1-8 train, 9 validates, 10 tests."""
    wanted = {
        "data.train_folds": [1, 2, 3, 4, 5, 6, 7, 8],
        "data.val_folds": [9],
        "data.test_folds": [10],
        "data.train_fraction": 1.0,
        "data.min_likelihood": 0.0,
        "data.keep": "labelled",
    }
    problems = [
        f"{name.removeprefix('data.')} is {run.setting(name)}, not {value}"
        for name, value in wanted.items()
        if run.setting(name) != value
    ]
    tasks = ptbxl_103_counts()["tasks"]
    task = str(test.meta.get("task"))
    if task not in tasks:
        return [*problems, f"{task} is no task of PTB-XL"]
    number = tasks[task]["labelled_records_per_split"]["test"]
    if len(test.record_id) != number:
        problems.append(f"{len(test.record_id):,} test records, not the {number:,} of PTB-XL 1.0.3")
    return problems


def _figures(card: Card, task: str, kind: tuple[str, ...]) -> tuple[list[Published], list[str]]:
    found, others = [], []
    for figures in card.published:
        value = figures.values.get(task, figures.values.get(_AS_PUBLISHED.get(task, "")))
        if value is None:
            continue
        if _FOLDS in figures.protocol:
            way = figures.protocol.split(";")[0].split(",")[0].split(":")[0]
            source = figures.source
            found.append(Published(card.name, task, figures.metric, value, way, figures.protocol, source, kind))
        else:
            others.append(f"{card.name}, {task}: published with another protocol, or one not told: {figures.protocol}")
    return found, others
