"""Each backbone against its published network: largest difference of the outputs, and the number of parameters.

For every reference in a folder: the network is built, `load_weights` reads the seeded weights from a file in the
published layout, and its outputs are held against those of the published code, as the tests do. `params` are ours
with the published head, `class` those of the published class, `left out` what that class has and ours has not as a
parameter: norms that are never called, the mask embedding of pre-training, positions that are not trained. `equal`
says whether ours and what is left out are all of them. With ECG_SHARED, at full size:

    python benchmarks/references.py [--references $ECG_SHARED/references] [NAME ...]
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import torch

from ecg_lightning.backbones import create_backbone, list_backbones

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "backbones")]

from published import HEADS, NETWORKS, Network, Reference, fastai_head, is_equal  # noqa: E402

LINE = "{:<28}{:>9}{:>9}{:>13}{:>9} {:<11}{:<5} {:>11} {:>11}{:>9} {}"
HEADER = ("reference", "tokens", "pooled", "penultimate", "logits", "allowed", "held", "params", "class", "left out")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all by default")
    shared = os.environ.get("ECG_SHARED")
    parser.add_argument("--references", type=Path, default=Path(shared, "references") if shared else None)
    arguments = parser.parse_args()
    folder = arguments.references
    if folder is None:
        parser.error("no folder of references: give --references DIR, or set ECG_SHARED")
    found = [path.stem for path in sorted(folder.glob("*.json")) if path.with_suffix(".npz").exists()]
    unknown = [name for name in [*found, *arguments.names] if name not in NETWORKS]
    if missing := unknown + [name for name in arguments.names if name not in found]:
        parser.error(f"{', '.join(missing)}: known are {', '.join(NETWORKS)}, {folder} holds {', '.join(found)}")
    torch.set_num_threads(1)
    print(f"largest absolute difference of float32 outputs on the reference's own input; torch {torch.__version__}")
    print(LINE.format(*HEADER, "equal"))
    notes = [f"{name}: {note}" for name in arguments.names or found if (note := one_reference(name, folder))]
    print("\npublished counts, in words:", *notes, sep="\n  ")
    without = set(list_backbones()) - {NETWORKS[name].backbone for name in found}
    print(f"\nno reference, so no line: {', '.join(sorted(without))}")


def one_reference(name: str, folder: Path) -> str | None:
    """Prints the line; the published count as the reference's table words it."""
    network, reference = NETWORKS[name], Reference.read(name, folder)
    table = json.loads((folder / f"{name}.json").read_text())
    backbone = create_backbone(network.backbone, **network.sizes)
    with tempfile.TemporaryDirectory() as files:
        dropped = reference.load_into(backbone, Path(files)).dropped
    head = fastai_head(reference, network.fastai_head) if network.fastai_head else None
    differences = reference.differences(backbone, time_last=network.time_last, head=head)
    own = {key: tensor.numel() for key, tensor in backbone.named_parameters()}
    of_head = {key for key in dropped if is_head(key, network)}
    params = sum(own.values()) + trained(of_head, reference)
    fixed = sum(t.numel() for key, t in backbone.state_dict().items() if key not in own and not statistic(key))
    left_out = trained(set(dropped) - of_head, reference) + fixed
    errors = [f"{differences[key]:.1e}" if key in differences else "-" for key in HEADER[1:5]]
    allowed = f"{network.tokens:.0e}/{network.pooled:.0e}".replace("e-0", "e-")
    held = "yes" if is_equal(differences, network.tokens, network.pooled) else "NO"
    count = table["parameter_count"]
    equal = "yes" if params + left_out == count else "NO"
    print(LINE.format(name, *errors, allowed, held, f"{params:,}", f"{count:,}", f"{left_out:,}", equal), flush=True)
    return table["parameter_count_published"]  # type: ignore[no-any-return]


def is_head(name: str, network: Network) -> bool:
    """Whether a tensor of the published file belongs to its head."""
    return name.startswith(network.fastai_head) if network.fastai_head else name.split(".")[0] in HEADS


def trained(names: set[str], reference: Reference) -> int:
    """Parameters among these tensors of the published file; second names count once."""
    return sum(math.prod(reference.shapes[name]) for name in names if name in reference.shapes and not statistic(name))


def statistic(name: str) -> bool:
    """Whether it is a batch norm's running figure."""
    return name.endswith(STATISTICS)


if __name__ == "__main__":
    main()
