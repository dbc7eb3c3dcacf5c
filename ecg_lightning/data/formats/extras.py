"""Libraries of the extra `formats`, which only some files need."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecg_lightning.errors import InputError


@contextmanager
def needs_extra(path: Path, library: str) -> Iterator[None]:
    """Turns a failed import of ``library`` into the command that installs it.

    Raises:
        InputError: naming the file that cannot be read without.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{path} cannot be read without {library}: pip install 'ecg-lightning[formats]'") from error
