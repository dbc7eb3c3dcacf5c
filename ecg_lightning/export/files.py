"""Writes the two kinds of files, and asks them what the run was asked."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.errors import InputError
from ecg_lightning.export.network import ProbabilityNetwork, split_steps

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun

Ask = Callable[[Tensor], NDArray[np.float32]]
"""Windows (batch, lead, time) in mV -> probabilities (batch, label), out of the file that was written."""
INPUT, OUTPUT = "ecg", "probabilities"
OPSET = 20


def write_onnx(trained: "TrainedRun", metadata: Mapping[str, str], example: Tensor, path: Path) -> Ask:
    """Writes the network by torch.export, for any number of windows; asks ONNX Runtime on the CPU.

    ``example`` (window, lead, time) must have been through the network once: what its filters keep is made by then.

    Raises:
        InputError: without the extra `export`, and for a network that ONNX cannot hold.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it, and would say so less plainly
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}: pip install 'ecg-lightning[export]'") from None
    name = trained.classifier.backbone.flag_name()
    outside, _ = split_steps(trained.signal.batch_chain)
    taken = run_batch_chain(outside, example[:2].expand(2, -1, -1))  # of one record torch.export would fix the 1
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                ProbabilityNetwork(trained, exported=True).eval(),
                (taken.contiguous(),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter's exceptions have no common type, and its reports are pages long
        reason = _first_cause(error)
        raise InputError(
            f"backbone {name} cannot be exported to ONNX ({type(error).__name__}: {reason}): export it as .safetensors"
        ) from error
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(metadata))
    path.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def ask(windows: Tensor) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = session.run([OUTPUT], {INPUT: run_batch_chain(outside, windows).numpy()})[0]
        return answer

    return ask


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what its parts tell each other, and that there is no torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def write_safetensors(trained: "TrainedRun", metadata: Mapping[str, str], example: Tensor, path: Path) -> Ask:
    """Writes the weights of backbone and head, as the run names them; asks a network built anew from the file."""
    from safetensors.torch import load_file, save

    weights = {name: tensor.contiguous() for name, tensor in _weights(trained).items()}
    path.write_bytes(save(weights, dict(metadata)))  # `save_file` lets nobody else read the file
    again = trained.rebuilt(load_file(path))
    network = ProbabilityNetwork(again).eval()

    def ask(windows: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = network(windows).numpy()
        return answer

    return ask


def _weights(trained: "TrainedRun") -> dict[str, Tensor]:
    state = trained.classifier.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(("backbone.", "head."))}
