"""Every backbone's training step on a GPU, in Markdown: ECGs per second, peak memory, share of the peak FLOP rate.

Ways: `plain` is the network written out layer by layer, float32 (TF32 off), softmax of all scores, AdamW tensor by
tensor; the others are the package's classifier under stochastic depth: `float32` and `tf32` with fused AdamW, `bf16
loop` with AdamW tensor by tensor, `bf16` fused, `bf16 compiled` as well. Batches are resident; one too large for the
memory is halved. FLOPs are those of matrix products and convolutions (forward and backward, attention as products,
Fourier transforms not counted). Then, with the real Trainer on a store of noise: the share of a step that is not the
model's, and where steps wait for CUDA.

Without a GPU it says so and ends. A row that fails is printed, the others go on, and the exit code is 1. Behind
`--budget` seconds no new row is started.

    python benchmarks/gpu_step.py --budget 270 --json gpu_step.json
    python benchmarks/gpu_step.py --device cpu --quick vit          # tries the script itself
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from backbones import PLAIN
from step_parts import Ours, Plain, timed
from trained_steps import seconds_per_step, waits

from ecg_lightning.backbones import list_backbones

SMALL, LARGE = 256, 64
BATCHES = {
    "vit": 1024,
    **dict.fromkeys(("chimera", "ecg_fm_base", "ecg_jepa_base", "ecgfounder", "ecgfounder_1lead"), LARGE),
    **dict.fromkeys(("hubert_ecg_base", "hubert_ecg_large", "st_mem_base"), LARGE),
}
"""Records of a batch where they are not SMALL."""
ORDER = ("vit", "st_mem_base", "ecgfounder", "hubert_ecg_base", "ecg_jepa_base", "mtecg_ti", "xresnet1d101", "s4",
         "multiresnet", "st_mem_small", "ecg_fm_base", "inception1d", "hubert_ecg_small", "hubert_ecg_large",
         "ecgfounder_1lead", "chimera")  # fmt: skip
"""What the budget may cut off stands last."""
TOO_LONG = ("chimera",)
"""Their plain form runs cell by cell: minutes a step on a GPU."""
COMPILED = ("vit", "st_mem_base")
"""Each takes the compiler a good half of a minute."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float32": {},
    "tf32": {},
    "bf16 loop": {"half": True, "fused": False},
    "bf16": {"half": True},
    "bf16 compiled": {"half": True, "compiled": True},
}
GIB = 2**30


def main() -> int:
    arguments = parsed()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("gpu_step: no GPU here, nothing is measured (try the script itself with --device cpu --quick)")
        return 0
    bench = Bench(arguments)
    print(bench.header(), flush=True)
    bench.trainer_rows()
    bench.table()
    bench.compiled_rows()
    return bench.end()


class Bench:
    """Rows, failures, and the time that is left."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.device = arguments, torch.device(arguments.device)
        self.ends_at = time.monotonic() + arguments.budget
        self.rows: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.left_out: list[str] = []
        self.figures: dict[str, Any] = {}
        self.flops: dict[str, float] = {}

    def header(self) -> str:
        """Machine, versions, how it was measured."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self.figures |= {"device": name, "torch": torch.__version__, "peak_tflops": self.arguments.peak}
        return f"## Training step: {name}, torch {torch.__version__}, peak taken as {self.arguments.peak:g} TFLOP/s\n"

    def attempt(self, what: str, run: Callable[[], None]) -> None:
        """Runs a row; what goes wrong is printed, and the next one is run."""
        if time.monotonic() > self.ends_at:
            self.left_out.append(what)
            return
        try:
            run()
        except Exception as error:
            self.failures.append(what)
            print(
                f"FAILED {what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True
            )
        finally:
            if self.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
                torch.cuda.empty_cache()

    # --- resident batches ---

    def table(self) -> None:
        """All ways but the compiled one, network by network."""
        print("\n| backbone | way | batch | ms a step | ECGs/s | against plain | peak GiB | FLOP rate of the peak |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name in self.arguments.names:
            for way in [way for way in WAYS if way != "bf16 compiled"]:
                if way == "plain" and (name not in PLAIN or name in TOO_LONG):
                    continue
                self.attempt(f"{name}, {way}", lambda name=name, way=way: self.row(name, way))  # type: ignore[misc]

    def compiled_rows(self) -> None:
        """At the end: the compiler takes most of the time."""
        for name in [name for name in COMPILED if name in self.arguments.names]:
            self.attempt(f"{name}, bf16 compiled", lambda name=name: self.row(name, "bf16 compiled"))  # type: ignore[misc]

    def row(self, name: str, way: str) -> None:
        """Halves the batch until it fits."""
        size = 2 if self.arguments.quick else BATCHES.get(name, SMALL)
        while True:
            try:
                return self.measure(name, way, size)
            except torch.OutOfMemoryError:
                if size < 4:
                    raise
            size //= 2
            torch.cuda.empty_cache()

    def measure(self, name: str, way: str, size: int) -> None:
        """One line of the table."""
        set_tf32(way == "tf32")
        gc.collect()  # the row before, so that the peak is this one's
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step = Plain(name, size, self.device) if way == "plain" else Ours(name, size, self.device, **WAYS[way])
        if isinstance(step, Ours) and name not in self.flops and not way.endswith("compiled"):
            self.flops[name] = step.num_flops() / size
        lengths = {"warm_up": 0, "seconds": 0.0, "most": 1} if self.arguments.quick else self.lengths()
        seconds = timed(step, self.device, **lengths)
        memory = torch.cuda.max_memory_allocated() / GIB if self.device.type == "cuda" else float("nan")
        row = {"backbone": name, "way": way, "batch": size, "seconds": seconds, "ecgs_per_second": size / seconds}
        row |= {"peak_gib": memory, "flops_per_ecg": self.flops.get(name)}
        self.rows.append(row)
        print(self.line(row), flush=True)

    def lengths(self) -> dict[str, Any]:
        """Of a measurement."""
        return {"warm_up": 3, "seconds": self.arguments.seconds, "most": 50}

    def line(self, row: dict[str, Any]) -> str:
        """Markdown; the plain row of a network stands before its others, its FLOPs are those of the others."""
        name, speed = row["backbone"], row["ecgs_per_second"]
        plain = [one["ecgs_per_second"] for one in self.rows if (one["backbone"], one["way"]) == (name, "plain")]
        against = f"{speed / plain[0]:.2f}" if plain else "-"
        flops = self.flops.get(name)
        share = f"{100 * speed * flops / (self.arguments.peak * 1e12):.1f} %" if flops else "-"
        return (
            f"| {name} | {row['way']} | {row['batch']} | {1000 * row['seconds']:.1f} | {speed:,.0f} | {against} | "
            f"{row['peak_gib']:.2f} | {share} |"
        )

    # --- the real Trainer ---

    def trainer_rows(self) -> None:
        """Share of the steps that is not the model's, and where they wait."""
        sizes, steps = ((4,), 2) if self.arguments.quick else ((64, 256, 1024), 30)
        with tempfile.TemporaryDirectory() as folder:
            for size in sizes:
                self.attempt(f"Trainer, batch {size}", lambda size=size: self.share(Path(folder), size, steps))  # type: ignore[misc]
            self.attempt("waits for CUDA", lambda: self.waits(Path(folder), sizes[-1], steps))

    def share(self, folder: Path, size: int, steps: int) -> None:
        """The model alone before and behind the Trainer's steps; the faster counts. None and two threads read ahead."""
        set_tf32(False)
        step = Ours("vit", size, self.device, half=True, draws=False)
        lengths = {"warm_up": 0, "seconds": 0.0, "most": 1} if self.arguments.quick else self.lengths()
        before = timed(step, self.device, **lengths)
        real = [
            seconds_per_step(folder, "vit", size, self.device, half=True, steps=steps, workers=threads)
            for threads in (0, 2)
        ]
        alone = min(before, timed(step, self.device, **lengths))
        shares = [1 - alone / one for one in real]
        self.figures[f"share_of_non_model_time_{size}"] = {"alone": alone, "real": real, "share": shares}
        print(
            f"vit, bf16-mixed, batch {size}: {1000 * real[0]:.2f} ms a step of the Trainer, {1000 * real[1]:.2f} with "
            f"two threads ahead, {1000 * alone:.2f} ms the model alone: {100 * shares[0]:.1f}, {100 * shares[1]:.1f} % "
            "are not the model's", flush=True,
        )  # fmt: skip

    def waits(self, folder: Path, size: int, steps: int) -> None:
        """By line; 3 of the 30 steps log four figures each."""
        found = waits(folder, "vit", size, self.device, half=True, steps=steps)
        self.figures["waits_for_cuda"] = dict(found)
        print(f"waits for CUDA in {steps} steps of the Trainer (figures are logged every 10): {sum(found.values())}")
        for line, number in found.most_common():
            print(f"- {number} at {line}", flush=True)

    def end(self) -> int:
        """What was left out, the file, the exit code."""
        if self.left_out:
            print(f"\nnot started behind {self.arguments.budget:g} s: {'; '.join(self.left_out)}")
        if self.failures:
            print(f"\n{len(self.failures)} failed: {'; '.join(self.failures)}")
        if self.arguments.json is not None:
            content = {**self.figures, "rows": self.rows, "failed": self.failures, "left_out": self.left_out}
            self.arguments.json.write_text(json.dumps(content, indent=1))
        return 1 if self.failures else 0


def set_tf32(on: bool) -> None:
    """Products and convolutions of float32 tensors in TF32, or in full."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="backbones; all by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="two steps of two records: tries the script")
    parser.add_argument("--budget", type=float, default=270.0, help="seconds behind which no row is started")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the device (H100: bfloat16, dense)")
    out = os.environ.get("OUT")
    parser.add_argument("--json", type=Path, default=Path(out) / "gpu_step.json" if out else None)
    arguments = parser.parse_args()
    known = [*ORDER, *sorted(set(list_backbones()) - set(ORDER))]
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no backbone is called {', '.join(unknown)}: there are {', '.join(known)}")
    arguments.names = arguments.names or known
    return arguments


if __name__ == "__main__":
    sys.exit(main())
