"""Good and nearly good files of each target, by the tests' own helpers: where the fuzzer starts."""

import argparse
import io
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fuzz_targets import SIGNAL, networks, packed
from made_up_formats import made_up
from made_up_formats import write_csv as write_recording
from made_up_ptbxl import write_ptbxl, write_record
from predicted import predicted, write_csv
from safetensors.torch import save

from ecg_lightning.chains import Bandpass, Crop
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.ptbxl import STATEMENTS, TABLE
from ecg_lightning.signals import SignalSpec

sys.path.append(str(Path(__file__).parents[1] / "backbones"))
from published import foreign_class


def stores(folder: Path) -> Iterator[bytes]:
    """Ten records in int16, and filtered in float32."""
    write_ptbxl(folder / "ptbxl", num_records=10, num_time_points=SIGNAL.num_time_points)
    filtered = SignalSpec(100, SIGNAL.num_time_points, chain=(Bandpass(0.5, 40.0), Crop()))
    for number, signal in enumerate((SIGNAL, filtered)):
        store = folder / f"{number}.h5"
        prepare(folder / "ptbxl", store, signal, workers=1, progress=False)
        yield store.read_bytes()


def sources(folder: Path) -> Iterator[bytes]:
    """The tables; records on the fast path, through wfdb, compressed, of several segments; a CSV of one's own."""
    write_ptbxl(folder / "ptbxl", num_records=3, num_time_points=2)
    yield packed({name: (folder / "ptbxl" / name).read_bytes() for name in (TABLE, STATEMENTS)})
    digital = np.random.default_rng(0).integers(-3000, 3000, (16, 12)).astype(np.int16)
    changes: list[dict[str, object]] = [
        {},
        {"adc_gain": [200.0] * 12, "baseline": [5] * 12, "comments": ["Age: 84", "Sex: F"]},
        *({"fmt": [name] * 12} for name in ("80", "24", "32", "508", "516", "524")),
    ]
    for number, change in enumerate(changes):
        home = folder / f"record{number}"
        home.mkdir()
        write_record(home / "r", digital // 64, 100, **change)
        yield packed({file.name: file.read_bytes() for file in sorted(home.iterdir())})
    for name in (b"8", b"61", b"160", b"212", b"310", b"311"):  # wfdb reads them and writes none
        header = b"r 12 100 16\n" + b"r.dat %s 200(0)/mV 12\n" % name * 12
        yield packed({"r.hea": header, "r.dat": digital.tobytes()})
    (folder / "parts").mkdir()
    write_record(folder / "parts" / "s", digital, 100)
    parts = {file.name: file.read_bytes() for file in sorted((folder / "parts").iterdir())}
    yield packed({"r.hea": b"r/2 12 100 32\ns 16\ns 16\n", **parts})
    write_recording(folder / "r.csv", made_up(seconds=0.02), time="time (s)")
    yield packed({"r.csv": (folder / "r.csv").read_bytes()})


def weights(_: Path) -> Iterator[bytes]:
    """State dicts in each container, training saves, objects beside the weights, unusual tensors in their place."""
    for network in networks():
        state = network.state_dict()
        yield save(state)
        yield saved(state)
        yield saved(state, legacy=True)
        yield saved(
            {"state_dict": state, "epoch": np.float64(3), "args": argparse.Namespace(rate=0.1), "step": 7, "none": None}
        )
    own, foreign = (network.state_dict() for network in networks())
    with foreign_class("hubert_ecg.hubert_ecg", "HuBERTECGConfig") as config:
        beside = config()
        beside.dim = 16
        yield saved({"model_state_dict": foreign, "model_config": beside})
    name = max(own, key=lambda one: own[one].numel())
    tensor = own[name]
    with warnings.catch_warnings():  # torch means to give them up
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8)
    for unusual in (
        tensor.to_sparse(),
        tensor.to(torch.bfloat16),
        tensor.to(torch.float8_e4m3fn),
        tensor.to(torch.complex64),
        tensor.to("meta"),
        quantized,
        torch.zeros(1).expand(tensor.shape),
        torch.nn.Parameter(tensor),
    ):
        yield saved({**own, name: unusual})
    yield saved(OrderedDict(list(own.items())[:3]))


def saved(content: object, *, legacy: bool = False) -> bytes:
    """As torch saves it, in the archive of today or the plain pickle of before."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def predictions(folder: Path) -> Iterator[bytes]:
    """The npz and the csv of four records, and what others write."""
    few = predicted(4, unknown=0.2)
    few.save(folder / "one.npz")
    yield (folder / "one.npz").read_bytes()
    yield write_csv(few, folder / "one.csv").read_bytes()
    yield write_csv(few, folder / "two.csv", fold=False).read_bytes()
    with np.load(folder / "one.npz") as file:
        content = dict(file)
    text = {"record_id": np.array(["a", "b", "c", "d"]), "probabilities": content["probabilities"].astype(np.float64)}
    np.savez(folder / "three.npz", **{**content, **text, "store": np.zeros(4, np.int16)})
    yield (folder / "three.npz").read_bytes()


SEEDS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "store": stores,
    "source": sources,
    "weights": weights,
    "predictions": predictions,
}


def write_seeds(target: str, corpus: Path) -> None:
    """Writes the seeds of ``target`` into the folder ``corpus``."""
    with TemporaryDirectory() as folder:
        for number, content in enumerate(SEEDS[target](Path(folder))):
            (corpus / f"seed{number:02d}").write_bytes(content)
