"""The command embed: a backbone's features of every record of a store, for whatever comes next."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import ecg_lightning
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.runs import NO_DEVICE, refuse_unwritable, whole_file

if TYPE_CHECKING:
    import torch

    from ecg_lightning.backbones import Backbone
    from ecg_lightning.data.dataset import ECGDataset

_SEED = 0
"""Of a backbone without weights: the same random features each time."""


def embed(
    store: list[str],
    output: str,
    run: str | None = None,
    checkpoint: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    sizes: dict[str, Any] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Writes features (record, feature_dim) of all records of a store, the mean over a record's windows.

    The npz holds features (float32), record_id, patient_id, fold, meta (JSON: where they come from), and store, the
    place of a record's store, where there are several.

    Args:
        store: stores that `prepare` wrote, or globs; with or without labels.
        output: the FILE.npz to write.
        run: whose backbone it is, as it was trained.
        checkpoint: of the run, another than the best of the last phase: a path, or last.
        backbone: a registry name or a class path instead.
        weights: of the backbone: a published checkpoint; its random initialisation if left out.
        sizes: arguments of the backbone that are not its defaults, such as '{"num_time_points": 500}'.
        batch_size: records computed at once.
        device: cpu, cuda, cuda:1, mps; by default a GPU where there is one.
        overwrite: replace a file that is there.
    """
    from ecg_lightning.data.dataset import ECGDataset
    from ecg_lightning.data.labelled_blocks import NoLabels
    from ecg_lightning.data.store_set import StoreSet
    from ecg_lightning.screen import set_up_screen
    from ecg_lightning.trained_run import checked_device

    set_up_screen()
    path = Path(output)
    _check(path, overwrite, run, backbone, batch_size, of_run=checkpoint, of_backbone=weights or sizes)
    network, origin = _of_run(str(run), checkpoint) if run else _of_backbone(str(backbone), weights, sizes or {})
    stores = StoreSet(store)
    stores.check_fits(network.signal, network.flag_name())
    dataset = ECGDataset(NoLabels(stores), network.signal, training=False, seed=_SEED)
    dataset.in_millivolts = True
    features = _features(network, dataset, batch_size, checked_device(device))
    rows = np.arange(stores.num_records)
    paths = [str(Path(one).resolve()) for one in stores.paths]
    meta = {
        **origin,
        "backbone": network.flag_name(),
        "store": paths[0] if len(paths) == 1 else paths,
        "store_sha256": stores.sha256,
        "ecg_lightning": ecg_lightning.__version__,
        "note": NO_DEVICE,
    }
    optional: dict[str, Any] = {"store": stores.store_of(rows)[0].astype(np.int16)} if len(paths) > 1 else {}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            features=features,
            record_id=stores.take("ecg_id", rows).astype(np.int64),
            patient_id=stores.take("patient_id", rows).astype(np.int64),
            fold=stores.take("strat_fold", rows).astype(np.int8),
            meta=np.array(json.dumps(meta)),
            **optional,
        )
    print(f"{path}: features of {len(rows)} records, {features.shape[1]} each. {NO_DEVICE}")


def _check(
    path: Path,
    overwrite: bool,
    run: str | None,
    backbone: str | None,
    batch_size: int,
    *,
    of_run: object,
    of_backbone: object,
) -> None:
    """Refuses flags that do not go together, and a file that is there."""
    if (run is None) == (backbone is None):
        raise UsageError("embed takes the network of --run RUN or --backbone NAME, one of them")
    if run is not None and of_backbone:
        raise UsageError("--weights and --sizes belong to --backbone NAME, a run has its own: leave them out")
    if backbone is not None and of_run:
        raise UsageError("--checkpoint belongs to --run RUN; a backbone's file is named by --weights")
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}, it must be 1 or more")
    if path.suffix.lower() != ".npz":
        raise UsageError(f"--output {path}: features are written as .npz: --output {path.stem}.npz")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: name another file, or replace it with --overwrite")
    refuse_unwritable(path)


def _of_run(run: str, checkpoint: str | None) -> "tuple[Backbone, dict[str, Any]]":
    from ecg_lightning.trained_run import load_run

    trained = load_run(run, checkpoint=checkpoint, device="cpu")
    seen = [str(one) for one in trained.trained_on]
    return trained.classifier.backbone, {**trained.origin(), "trained_on": seen}


def _of_backbone(name: str, weights: str | None, sizes: dict[str, Any]) -> "tuple[Backbone, dict[str, Any]]":
    import torch

    from ecg_lightning.backbones import create_backbone, weights_digest
    from ecg_lightning.backbones.provenance import pretraining_of

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = create_backbone(name, weights, **sizes)
    if weights is None:
        print(f"{name}: no --weights, so its random initialisation (seed {_SEED})", file=sys.stderr)
    digest = None if weights is None else weights_digest(weights)
    seen = [] if weights is None else [str(one) for one in pretraining_of(weights)]
    origin = {"weights": weights, "weights_sha256": digest, "trained_on": seen}
    return network.eval().requires_grad_(False), origin


def _features(
    network: "Backbone", dataset: "ECGDataset", batch_size: int, device: "torch.device"
) -> NDArray[np.float32]:
    """(record, feature_dim), in the order of the stores."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from ecg_lightning.chains import run_batch_chain

    network = network.to(device)
    features = np.empty((len(dataset), network.feature_dim), np.float32)
    with torch.inference_mode(), Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        shown = bar.add_task("records", total=len(dataset))
        for start, windows in _batches(dataset, batch_size):
            ecg = run_batch_chain(network.signal.batch_chain, windows.to(device))
            each = network(ecg.flatten(0, 1)).unflatten(0, ecg.shape[:2])
            features[start : start + len(ecg)] = each.mean(dim=1).float().cpu().numpy()
            bar.advance(shown, len(ecg))
    if not np.isfinite(features).all():
        raise InputError("the network gave features that are no numbers: is it the store that it was made for?")
    return features


def _batches(dataset: "ECGDataset", batch_size: int) -> "Iterator[tuple[int, torch.Tensor]]":
    """Place of the first record, and windows (batch, window, lead, time) in mV."""
    from ecg_lightning.data.sampler import Request

    for start in range(0, len(dataset), batch_size):
        rows = np.arange(start, min(start + batch_size, len(dataset)))
        yield start, dataset.__getitems__(Request(rows, 0, start, len(rows)))["ecg"]
