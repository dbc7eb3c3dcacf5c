"""The excerpt of PTB-XL: one compressed file in the package, and the tree that it holds."""

import lzma
import shutil
import tarfile
from importlib.resources import as_file, files
from pathlib import Path

from ecg_lightning.errors import InputError

FILE_NAME = "ptbxl_excerpt.tar.xz"


def unpack_excerpt(folder: Path) -> Path:
    """Unpacks the shipped records into ``folder``, in PTB-XL's own layout; returns it.

    Files of an earlier unpacking are written anew, others are left alone.

    Raises:
        InputError: when the folder cannot be written, or the shipped file is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with as_file(files("ecg_lightning.demo").joinpath(FILE_NAME)) as path:
            unpack(path, folder)
    except OSError as error:
        raise InputError(
            f"the records cannot be unpacked into {folder} ({error}): make room, or name another --output"
        ) from error
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks ``archive``; nothing in it can lie outside ``folder``, and there are no links.

    Raises:
        InputError: for an archive that is damaged or has such members.
    """
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise InputError(
                        f"{archive}: {member.name} is neither a file nor a folder: install ecg-lightning anew"
                    )
                _extract(tar, member, folder)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{archive} is damaged ({error}): install ecg-lightning anew") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """As ``tar.extract(member, folder, filter="data")``, which Python has not before 3.11.4."""
    place = (folder / member.name).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise tarfile.ExtractError(f"{member.name} would lie outside {folder}")
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # a file
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
