"""What a training reads, in words that outlive its stores: sources, folds, records, patients."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.splits import Split
from ecg_lightning.data.store_set import BlockPlace

PTBXL = "PTB-XL"


def source_name(attributes: Mapping[str, Any]) -> str:
    """What a store's records are of: the same for every store of the same archive, whatever its rate or chain."""
    version = str(attributes["source_version"])
    if version.startswith("simulated"):
        return version
    if str(attributes["source_kind"]) == "ptbxl":
        return PTBXL
    return f"{attributes['source_kind']} {str(attributes['source']).rstrip('/').rpartition('/')[2]}"


def what_is_trained_on(data: PTBXLDataModule) -> list[dict[str, Any]]:
    """Of each source in the training split: its name, the hashes of its stores, folds, records and patients.

    One entry of ``data.stores``, a glob, may hold stores of several sources; each is named.
    """
    stores = data.stores
    weighed = [one for one in range(stores.num_sources) if data.weights is None or data.weights[one]]
    groups: dict[tuple[int, str], list[int]] = {}
    for number, (store, entry) in enumerate(zip(stores.stores, stores.source_of_store, strict=True)):
        if entry in weighed:
            groups.setdefault((entry, source_name(store.attributes)), []).append(number)
    found = []
    for (entry, name), numbers in groups.items():
        split = data.split("train", None if data.weights is None else entry)
        admits = partial(_lies_in, split, frozenset(numbers))
        mine = Split(split.task_labels, split.folds, split.only_labelled, entry, admits=admits)
        if not len(mine):
            continue
        found.append(
            {
                "source": name,
                "stores_sha256": [str(stores.stores[number].attributes["sha256"]) for number in numbers],
                "folds": list(data.folds["train"]),
                "records": len(mine),
                "patients": len(mine.patients()),
            }
        )
    return found


def _lies_in(split: Split, numbers: frozenset[int], place: BlockPlace) -> NDArray[np.bool_]:
    """Which records of a block are of these stores, and of the fraction of patients that is trained on."""
    if place.store not in numbers:
        return np.zeros(place.stop - place.start, np.bool_)
    return np.ones(place.stop - place.start, np.bool_) if split.admits is None else split.admits(place)
