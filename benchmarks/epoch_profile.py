"""Where the time of fine-tuning epochs goes: a profile of the real command, milliseconds a step by part.

The profiler slows Python down far more than the operators it calls, so shares of the parts are an upper bound of what
is not the network's. Another version of the package is profiled by its path:

    python benchmarks/epoch_profile.py --store STORE
    PYTHONPATH=OTHER_CHECKOUT python benchmarks/epoch_profile.py --store STORE
"""

import argparse
import cProfile
import pstats
import tempfile
import warnings
from pathlib import Path

import ecg_lightning
from ecg_lightning.cli import main as command

OPTIMIZER = "optimizer, gradients to zero"
CLOSURE = ("forward and loss", "backward")
"""What the optimizer calls, and what is not its own."""
PARTS = {
    "the step": ("training_epoch_loop.py", "advance"),
    "fetch and collate": ("fetchers.py", "__next__"),
    "to the device, to mV, chain": ("strategy.py", "batch_to_device"),
    "forward and loss": ("ecg_lightning/classifier.py", "training_step"),
    "backward": ("graph.py", "_engine_run_backward"),
    "gradient norm and clipping": ("module.py", "configure_gradient_clipping"),
    OPTIMIZER: ("optim/adam.py", "step"),
    "coins and seeds": ("ecg_lightning/classifier.py", "on_train_batch_start"),
    "rates": ("ecg_lightning/post_training.py", "on_train_batch_start"),
    "logging": ("module.py", "log"),
    "logger and csv": ("logger_connector.py", "log_metrics"),
    "checkpoints (in all)": ("trainer/trainer.py", "save_checkpoint"),
}
"""Part -> file and function whose cumulative time it is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "config": "backbone/vit", "data.store": arguments.store, "data.task": "superdiagnostic",
            "data.batch_size": arguments.batch_size, "post_training.probe.epochs": 0,
            "post_training.fine_tune.epochs": arguments.epochs, "trainer.accelerator": "cpu",
            "run": Path(folder) / "run",
        }  # fmt: skip
        profile = cProfile.Profile()
        code = profile.runcall(command, ["fit", *(f"--{name}={value}" for name, value in flags.items())])
    if code:
        raise SystemExit(code)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    steps = calls_and_seconds(stats, PARTS["forward and loss"])[0]
    print(f"{Path(ecg_lightning.__file__).parent}: {steps} steps of {arguments.batch_size} records\n")
    whole = calls_and_seconds(stats, PARTS["the step"])[1]
    for part, where in PARTS.items():
        calls, seconds = calls_and_seconds(stats, where)
        if part == OPTIMIZER:
            seconds -= sum(calls_and_seconds(stats, PARTS[inner])[1] for inner in CLOSURE)
        print(f"{part:<30}{1e3 * seconds / steps:>8.2f} ms{seconds / whole:>8.1%}   {calls} calls")


def calls_and_seconds(
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]], where: tuple[str, str]
) -> tuple[int, float]:
    """Calls and cumulative seconds of the functions of that name in files that end so."""
    found = [entry for (file, _, name), entry in stats.items() if file.endswith(where[0]) and name == where[1]]
    return sum(entry[0] for entry in found), sum(entry[3] for entry in found)


if __name__ == "__main__":
    main()
