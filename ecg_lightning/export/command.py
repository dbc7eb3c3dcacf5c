"""The command export: a run as one file that is compared with the run before it gets its name."""

from pathlib import Path
from typing import TYPE_CHECKING

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.runs import refuse_unwritable, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ecg_lightning.export.files import Ask
    from ecg_lightning.trained_run import TrainedRun

_MOST = 32
"""Records that the file is compared on."""
_SUFFIXES = (".onnx", ".safetensors")


def export(
    run: str,
    output: str,
    records: list[str] | None = None,
    checkpoint: str | None = None,
    tolerance: float = 1e-5,
    overwrite: bool = False,
) -> None:
    """Writes a run as one file for other programs, once its probabilities are those of the run.

    FILE.onnx takes windows (batch, lead, time) in mV, float32, behind the steps before the crop (the metadata name
    them), and gives probabilities (batch, label); what is behind the crop is inside, but for what ONNX cannot hold,
    which the metadata name as well. FILE.safetensors holds the
    weights, which `fit --model.weights` loads. Both carry signal spec, chain, labels, thresholds and temperature where
    `evaluate` has chosen them, and the checkpoint's hash in their metadata, and have a model card beside them, FILE.md.

    Args:
        run: the run folder.
        output: FILE.onnx (with the extra: pip install 'ecg-lightning[export]') or FILE.safetensors.
        records: files or folders of ECGs to compare on; up to 32 of the run's own store if left out.
        checkpoint: another than the best of the last phase: a path, or last.
        tolerance: largest difference of a probability from the run's.
        overwrite: replace files that are there.
    """
    from ecg_lightning.export.compared import compared_windows
    from ecg_lightning.export.files import write_onnx, write_safetensors
    from ecg_lightning.export.metadata import metadata_of
    from ecg_lightning.export.model_card import model_card
    from ecg_lightning.screen import set_up_screen
    from ecg_lightning.trained_run import load_run

    set_up_screen()
    path = Path(output)
    card = path.with_name(f"{path.name}.md")
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--output {path}: a run is exported as {' or '.join(_SUFFIXES)}: --output {path.stem}.onnx")
    if there := [str(one) for one in (path, card) if one.exists() and not overwrite]:
        raise InputError(f"{', '.join(there)}: there already; name another file, or replace it with --overwrite")
    refuse_unwritable(path)
    trained = load_run(run, checkpoint=checkpoint, device="cpu")
    windows, of = compared_windows(trained, records, _MOST)
    metadata = metadata_of(trained)
    write = write_onnx if path.suffix.lower() == ".onnx" else write_safetensors
    expected = ask_run(trained, windows)
    with whole_file(path) as temporary:
        ask = write(trained, metadata, windows, temporary)
        difference = largest_difference(ask, windows, expected)
        if not difference <= tolerance:  # NaN too
            raise InputError(
                f"{path} would give other probabilities than the run, by up to {difference:.2e}, --tolerance is "
                f"{tolerance:g}, so nothing is written: report it, with the backbone ({metadata['backbone']})"
            )
    with whole_file(card) as temporary:
        text = model_card(trained, metadata, path, f"{difference:.1e} on {of}")
        temporary.write_text(text, encoding="utf-8")
    print(f"{path}: the run's probabilities to {difference:.1e} on {of}; card: {card}")


def ask_run(trained: "TrainedRun", windows: "Tensor") -> "NDArray[np.float32]":
    """The run's own probabilities (window, label)."""
    import torch

    from ecg_lightning.export.network import ProbabilityNetwork

    with torch.inference_mode():
        answer: NDArray[np.float32] = ProbabilityNetwork(trained).eval()(windows).numpy()
    return answer


def largest_difference(ask: "Ask", windows: "Tensor", expected: "NDArray[np.float32]") -> float:
    """Between what the file says and what is ``expected``, of all windows at once and of one alone."""
    import numpy as np

    pairs = ((ask(windows), expected), (ask(windows[:1]), expected[:1]))
    return max(float(np.abs(got - wanted).max()) for got, wanted in pairs)
