"""The commands that are not Lightning's: one function each; its signature and docstring are the help."""

import sys
from typing import Any, Literal

from ecg_lightning.errors import UsageError


def prepare(
    source: str,
    output: str,
    backbone: str = "vit",
    sizes: dict[str, Any] | None = None,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
) -> None:
    """Makes a store from PTB-XL's files: the records at the backbone's rate, through the steps before its crop.

    Args:
        source: folder of PTB-XL (https://physionet.org/content/ptb-xl/1.0.3/), with ptbxl_database.csv in it.
        output: the store to write, such as ptbxl-100hz.h5; a stopped run goes on where it was.
        backbone: whose signal the store is made for: a registry name, or the class path of one of your own.
        sizes: arguments of the backbone that are not its defaults, such as '{"sampling_rate": 500}'.
        workers: processes; by default one per core where that pays.
        on_error: stop at damaged records, or skip them and list them.
        overwrite: replace an existing store.
    """
    from ecg_lightning.backbones import backbone_signal
    from ecg_lightning.data.prepare import prepare as prepare_store

    command = " ".join(
        [
            "ecg-lightning",
            "prepare",
            f"--backbone {backbone}",
            f"--on_error {on_error}",
            *([f"--sizes {sizes}"] if sizes else []),
        ]
    )
    report = prepare_store(
        source,
        output,
        backbone_signal(backbone, **(sizes or {})),
        workers=workers,
        on_error=on_error,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
        command=command,
    )
    print(f"{report.path}: {report.num_records} records; look into it with: ecg-lightning inspect {report.path}")


def inspect(target: str | None = None, backbone: str | None = None, json: bool = False, verify: bool = False) -> None:
    """Shows what is in a store, a run folder or a backbone.

    Args:
        target: a store or a run folder; may be given without the flag.
        backbone: a registry name instead.
        json: print JSON.
        verify: recompute the checksum of every record of a store.
    """
    from ecg_lightning import descriptions, inspection

    if (target is None) == (backbone is None):
        raise UsageError("inspect takes one thing to look at: STORE, RUN or --backbone NAME")
    if backbone is not None:
        descriptions.inspect_backbone(backbone, json=json)
    elif descriptions.is_run(str(target)):
        descriptions.inspect_run(str(target), json=json)
    else:
        inspection.inspect_store(str(target), json=json, verify=verify)
