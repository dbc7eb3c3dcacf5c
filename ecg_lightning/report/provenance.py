"""Where the figures of a report come from: runs and their checkpoints, recipes, data, machine; what casts doubt."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from ecg_lightning.backbones.provenance import Pretraining, seen_in
from ecg_lightning.data.trained_on import source_name
from ecg_lightning.report.html import Html, details, facts, verbatim
from ecg_lightning.report.judged import Judged, Split
from ecg_lightning.report.published_figures import card_of
from ecg_lightning.report.run_files import ReadRun
from ecg_lightning.report.run_groups import Group, shown
from ecg_lightning.report.sheets import NONE, Cell, Sheet
from ecg_lightning.report.wrong_records import opened_store

_FULL_TEST = 2000
"""Test records below which an excerpt is warned of: PTB-XL's fold 10 has 2,198."""


def contamination(runs: Iterable[ReadRun]) -> list[str]:
    """What the weights may have seen of the data that they are judged on, a sentence for each backbone and file."""
    said: dict[str, None] = {}
    for run in runs:
        weights = run.environment.get("weights")
        if not weights:
            continue
        if history := pretrained_on(run):
            said.update(dict.fromkeys(_seen(run, history)))
            continue
        card = card_of(run)
        name = str(run.setting("model.backbone.class_path", "backbone")).rsplit(".", 1)[-1]
        if card is None:
            text = (
                f"{name} is a network of one's own: whether PTB-XL was in the pre-training of its weights is not known."
            )
        elif card.weights.startswith("none published"):
            text = (
                f"The weights of {card.name} are one's own ({weights}): whether the test records were in their "
                "pre-training is not known to this page."
            )
        elif card.ptbxl_in_pretraining is False:
            continue
        else:
            seen = "was" if card.ptbxl_in_pretraining else "may have been (its card says unknown)"
            text = (
                f"CONTAMINATION: PTB-XL {seen} in the pre-training of the published {card.name}, so that scores on it "
                f"may flatter these weights. Pre-trained on: {card.pretraining_data}."
            )
        said[text] = None
    return [*said]


def pretrained_on(run: ReadRun) -> list[Pretraining]:
    """What the weights that the run began with say of their own pre-training; empty where they say nothing."""
    return [Pretraining.from_json(one) for one in run.environment.get("pretrained_on", [])]


def _seen(run: ReadRun, history: Sequence[Pretraining]) -> list[str]:
    """Tested records that were pre-trained on: `fit` refuses such folds, a `test` of other folds may bring them in."""
    tested = run.test or run.validation
    if tested is None:
        return []
    opened, _ = opened_store(tested.meta)
    of_fit = tested.meta.get("store_sha256") == run.environment.get("store_sha256")
    unknown = [one.source for one in history if of_fit]  # a store that is gone, but was the one of the fit
    sources = unknown if opened is None else [source_name(one.attributes) for one in opened.stores]
    return [
        f"CONTAMINATION: the weights were trained before on tested fold(s) {', '.join(map(str, folds))} of "
        f"{one.source} ({one.objective}): scores on them may flatter."
        for one, folds in seen_in(history, sources, {*tested.fold.tolist()})
    ]


def small_test(judged: Iterable[Judged]) -> list[str]:
    """A warning where a task of PTB-XL was tested on an excerpt."""
    few = {one.group.task: one.evaluation.num_records for one in judged if one.evaluation.num_records < _FULL_TEST}
    if not few:
        return []
    counted = ", ".join(f"{task}: {number:,}" for task, number in few.items())
    return [
        f"Few test records ({counted}): intervals are wide, and the figures are not comparable with published ones."
    ]


def runs_sheet(runs: Sequence[ReadRun], judged: Sequence[Judged], split: Split) -> Sheet:
    """Every run, what became of it, its checkpoint's hash."""
    labels = {id(run): one.group.label for one in judged for run in one.group.runs}
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        predictions = run.test if split == "test" else run.validation
        meta = {} if predictions is None else predictions.meta
        rows.append(
            (
                shown(run),
                labels.get(id(run), NONE),
                str(run.setting("data.task", run.values.get("task", NONE))),
                str(run.setting("seed_everything", run.values.get("seed", NONE))),
                run.state,
                None if predictions is None else len(predictions.record_id),
                str(meta.get("checkpoint", NONE)),
                str(meta.get("checkpoint_sha256", NONE)),
                "; ".join(run.problems) or NONE,
            )
        )
    head = ("run", "recipe", "task", "seed", "state", f"{split} records", "checkpoint", "sha256", "remark")
    caption = f"All {len(runs)} runs that were named, with the checkpoint that made their {split} predictions."
    return Sheet("runs", caption, head, tuple(rows), frozenset({0, 1, 2, 4, 6, 7, 8}))


def recipes_sheet(groups: Sequence[Group]) -> Sheet:
    """What each recipe does, as its runs' configs say."""
    first = {group.label: group.first for group in reversed(groups)}
    names = (
        *("probe.epochs", "probe.learning_rate", "probe.keep", "fine_tune.epochs", "fine_tune.learning_rate"),
        *("fine_tune.layer_decay", "drop_path_rate", "drop_path_over_depth"),
    )
    rows = [
        (
            label,
            *(str(first[label].setting(f"post_training.{name}", NONE)) for name in names),
            str(first[label].setting("data.batch_size", NONE)),
        )
        for label in dict.fromkeys(group.label for group in groups)
    ]
    head = ("recipe", *(name.replace("_", " ").replace(".", ": ") for name in names), "batch")
    caption = "The recipes, as the runs' configs state them (epochs of 0: without that phase)."
    return Sheet("recipes", caption, head, tuple(rows), frozenset({0, 3, 8}))


def data_facts(runs: Sequence[ReadRun], judged: Sequence[Judged]) -> Html:
    """The stores by hash; what they say of their source, where they are still there."""
    rows: list[tuple[str, object]] = []
    metas = {str(one.files[0].meta.get("store_sha256")): one.files[0].meta for one in judged}
    for digest in dict.fromkeys(str(run.environment.get("store_sha256")) for run in runs if run.environment):
        its = [run for run in runs if str(run.environment.get("store_sha256")) == digest]
        meta = metas.get(digest, {"store": its[0].environment.get("store"), "store_sha256": digest})
        rows.append(("trained on store", f"{its[0].environment.get('store')}, sha256 {digest} ({len(its)} runs)"))
        rows += _store_rows(meta)
        rows.append(("folds", _folds(its)))
    for digest in metas.keys() - {str(run.environment.get("store_sha256")) for run in runs}:
        rows.append(("tested on store", f"{metas[digest].get('store')}, sha256 {digest}"))
        rows += _store_rows(metas[digest])
    for run in {
        str(run.environment.get("weights_sha256")): run for run in runs if run.environment.get("weights")
    }.values():
        rows.append(("weights", f"{run.environment['weights']}, sha256 {run.environment.get('weights_sha256')}"))
        rows += [("which were pre-trained on", str(one)) for one in pretrained_on(run)]
    return facts(rows)


def _folds(runs: Sequence[ReadRun]) -> str:
    """Which folds train, validate and test."""
    told = {
        "; ".join(
            f"{split}: {', '.join(map(str, run.setting(f'data.{split}_folds', [])))}"
            for split in ("train", "val", "test")
        )
        for run in runs
    }
    return (
        next(iter(told)) if len(told) == 1 else f"{len(told)} sets of folds: each fold tests in turn, see the configs"
    )


def _store_rows(meta: Mapping[str, Any]) -> list[tuple[str, object]]:
    opened, problem = opened_store({**meta})
    if opened is None:
        return [("its source", f"not told: {problem}")]
    first = opened.stores[0]
    attributes = first.attributes
    source = f"{attributes.get('source_version', 'no version')}; {opened.num_records:,} records"
    rows: list[tuple[str, object]] = [
        ("its source", source),
        ("made by", attributes.get("command") or "a call from Python"),
    ]
    if digest := attributes.get("csv_sha256"):
        rows.append(("sha256 of the source's table", digest))
    return rows


def environment_facts(runs: Sequence[ReadRun]) -> Html:
    """Versions and machines of the runs; several where they differ."""
    rows: list[tuple[str, object]] = []
    for name in ("ecg_lightning", "python", "platform", "devices", "threads"):
        rows.append((name, _distinct(run.environment.get(name) for run in runs)))
    packages = {name for run in runs for name in run.environment.get("packages", {})}
    rows += [
        (name, _distinct(run.environment.get("packages", {}).get(name) for run in runs)) for name in sorted(packages)
    ]
    return facts(rows)


def _distinct(values: Iterable[Any]) -> str:
    told = dict.fromkeys(
        ", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values if value is not None
    )
    return "; ".join(told) or "not told"


def config_details(runs: Sequence[ReadRun]) -> list[Html]:
    """Command and whole config of the first run of each recipe, folded up."""
    parts = []
    for run in runs:
        command = run.environment.get("command")
        line = " ".join(map(str, command)) if isinstance(command, list) else "not told"
        config = yaml.safe_dump(json.loads(json.dumps(run.config, default=str)), sort_keys=False)
        parts.append(details(f"{shown(run)}: command and config", [verbatim(f"{line}\n\n{config}")], "screen"))
    return parts
