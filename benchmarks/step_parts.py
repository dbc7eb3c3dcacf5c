"""What the benchmarks of a training step share: our step and the plain one on a resident batch, noise in a store."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import backbones as plain_forms
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecg_lightning.backbones import Backbone, create_backbone
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.compiling import compile_in_place
from ecg_lightning.data.labels import ABSENT, ptbxl_statements
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.optim import adamw, parameter_groups
from ecg_lightning.signals import StoredSignal
from ecg_lightning.stochastic_depth import Mode, OverDepth, draw_coins, set_drop_path

LABELS = 71
RATE = 1e-5
"""Learning rate: small, so that no loss grows while times are taken."""


def network(name: str, device: torch.device) -> Backbone:
    """With the random start of seed 0, without dropout: the plain forms have none."""
    torch.manual_seed(0)
    with device:
        backbone = create_backbone(name)
    for module in backbone.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return backbone.to(device).train()


def resident_batch(backbone: Backbone, size: int, device: torch.device) -> dict[str, Any]:
    """Noise and labels that stay where they are."""
    shape = (size, 1, len(backbone.signal.leads), backbone.signal.num_time_points)
    labels = torch.randint(0, 2, (size, LABELS), device=device, dtype=torch.uint8)
    ecg = torch.randn(shape, device=device)
    return {"ecg": ecg, "labels": labels, "index": torch.arange(size), "num_global": size, "first": 0}


class Ours:
    """Forward, backward and optimizer of the classifier on a resident batch.

    Args:
        half: autocast to bfloat16.
        fused: AdamW's kernel; False is the loop over tensors.
        draws: coins for each step anew, as in a run; otherwise those of the first.
        compiled: by torch.compile.
    """

    def __init__(
        self,
        name: str,
        size: int,
        device: torch.device,
        *,
        half: bool = False,
        fused: bool = True,
        draws: bool = True,
        compiled: bool = False,
        drop_path: tuple[float, OverDepth, Mode] = (0.1, "linear", "mask"),
    ) -> None:
        self.device, self.half, self.draws = device, half, draws
        backbone = network(name, device)
        set_drop_path(backbone, *drop_path)
        self.classifier = ECGClassifier(backbone, [f"label {place}" for place in range(LABELS)]).to(device)
        self.batch: Any = resident_batch(backbone, size, device)
        groups = parameter_groups(backbone, self.classifier.head)
        self.optimizer = adamw(groups) if fused else torch.optim.AdamW(groups, foreach=False, fused=False)
        for group in self.optimizer.param_groups:
            group["lr"] = RATE
        self.coins = torch.Generator().manual_seed(0)
        self.draw()
        if compiled:
            compile_in_place(backbone, "default")

    def draw(self) -> None:
        """The coins of a step."""
        draw_coins(self.classifier.backbone, len(self.batch["ecg"]), slice(None), self.coins, self.device)

    def loss(self) -> Tensor:
        """Mean over the batch."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            logits = self.classifier.window_logits(self.batch)
            return self.classifier.record_losses(logits, self.batch["labels"]).mean()

    def __call__(self) -> None:
        """One step."""
        if self.draws:
            self.draw()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def num_flops(self) -> int:
        """Of forward and backward: matrix products and convolutions, as torch counts them; Fourier transforms not."""
        whole = self.batch
        self.batch = {**whole, **{name: whole[name][:2] for name in ("ecg", "labels", "index")}}
        self.draw()
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:  # products that every version of torch counts
            self.loss().backward()
        self.optimizer.zero_grad()
        self.batch = whole
        self.draw()
        return int(counter.get_total_flops() * len(whole["ecg"]) / 2)


class Plain:
    """The same network without the package's modules: float32, softmax written out, AdamW tensor by tensor."""

    def __init__(self, name: str, size: int, device: torch.device) -> None:
        backbone = network(name, device)
        self.form = plain_forms.PLAIN[name]
        self.state = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
        self.head = nn.Linear(backbone.feature_dim, LABELS, device=device)
        self.batch = resident_batch(backbone, size, device)
        self.device = device
        self.optimizer = torch.optim.AdamW(
            [*backbone.parameters(), *self.head.parameters()], lr=RATE, weight_decay=0.05, foreach=False, fused=False
        )

    def __call__(self) -> None:
        """One step on the resident batch."""
        self.step(self.batch["ecg"][:, 0], self.batch["labels"])

    def step(self, ecg: Tensor, labels: Tensor) -> None:
        """``ecg`` (batch, lead, time), ``labels`` (batch, label)."""
        with self.device, norms_in_training():
            logits = self.head(self.form(self.state, ecg))
            F.binary_cross_entropy_with_logits(logits, labels.float()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextmanager
def norms_in_training() -> Iterator[None]:
    """The plain forms, written for evaluation, take the statistics of the batch."""

    def batch_norm(state: plain_forms.State, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, training=True)

    former, plain_forms.batch_norm = plain_forms.batch_norm, batch_norm
    try:
        yield
    finally:
        plain_forms.batch_norm = former


def timed(step: Callable[[], None], device: torch.device, *, warm_up: int, seconds: float, most: int) -> float:
    """Seconds a step: the mean over so many steps as fill ``seconds``, 2 to ``most``, behind the warm-up."""
    for _ in range(warm_up):
        step()
    wait(device)
    start = time.perf_counter()
    step()
    wait(device)
    number = int(min(most, max(2, seconds / max(1e-6, time.perf_counter() - start))))
    start = time.perf_counter()
    for _ in range(number):
        step()
    wait(device)
    return (time.perf_counter() - start) / number


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def noise_store(path: Path, backbone: Backbone, num_records: int) -> Path:
    """A store that fits the backbone: noise of 512 records over and over, a statement each, all in training folds."""
    random, signal = np.random.default_rng(0), backbone.signal
    points, raw = signal.window_points, not signal.stored_chain
    likelihood = np.full((num_records, LABELS), ABSENT, np.uint8)
    likelihood[np.arange(num_records), random.integers(LABELS, size=num_records)] = 100
    folds = np.where(np.arange(num_records) < num_records - 64, 1, 9).astype(np.int8)
    records = {
        "ecg_id": np.arange(num_records),
        "patient_id": np.arange(num_records),
        "strat_fold": folds,
        "age": random.uniform(18, 90, num_records),
        "sex": random.integers(2, size=num_records).astype(np.int8),
        "checksum": np.zeros(num_records, np.uint32),
    }
    codes = tuple(f"S{place:02d}" for place in range(LABELS))
    flags = {kind: np.ones(LABELS, bool) for kind in ("diagnostic", "form", "rhythm")}
    statements = ptbxl_statements(codes, flags, codes, codes)
    stored = StoredSignal(signal.record_rate, signal.leads, points, signal.stored_chain)
    attributes = {"source": "made up", "millivolts_per_unit": 0.001 if raw else 1.0}
    offset = create_store(path, stored, "<i2" if raw else "<f4", records, likelihood, statements, attributes)
    block = random.normal(0, 300 if raw else 0.3, (512, len(signal.leads), points)).astype("<i2" if raw else "<f4")
    with path.open("r+b") as file:
        file.seek(offset)
        for first in range(0, num_records, 512):
            file.write(block[: num_records - first].tobytes())
    finish_store(path, {})
    return path
