"""Weights by name: ``hf://owner/repository/file`` on the Hugging Face hub, downloaded once, then read from the cache.

The client (the extra ``hub``) is imported only when such a name is given. It asks ``HF_ENDPOINT`` and caches below
``HF_HOME``. A file in the cache is taken without asking, so that machines without a network go on; a newer one of the
same name comes when the old one is deleted there, or is named by its revision. The run's hash says which one it was.
"""

import logging
import re
from functools import partial
from pathlib import Path

from ecg_lightning.errors import InputError

log = logging.getLogger(__name__)
SCHEME = "hf://"
_NAME = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")


def is_on_hub(weights: str | Path) -> bool:
    """Whether ``weights`` names a file on the hub."""
    return isinstance(weights, str) and weights.startswith(SCHEME)


def local_file(weights: str | Path) -> Path:
    """The file itself, or the local copy of one on the hub: ``hf://owner/repository[@revision]/file``.

    Raises:
        InputError: when the name is malformed, the client is not installed, or the file cannot be had.
    """
    if not isinstance(weights, str) or not is_on_hub(weights):
        return Path(weights)
    parts = _NAME.fullmatch(weights)
    if parts is None:
        form = "hf://owner/repository/file, or hf://owner/repository@revision/file"
        raise InputError(f"{weights} names no file on the hub: write {form}")
    return _fetched(weights, parts["repository"], parts["file"], parts["revision"])


def _fetched(weights: str, repository: str, file: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f"{weights} needs the Hugging Face client: pip install 'ecg-lightning[hub]', or download the file and give "
            "its path"
        ) from None
    fetch = partial(hf_hub_download, repository, file, revision=revision)
    try:
        try:
            return Path(fetch(local_files_only=True))
        except LocalEntryNotFoundError:
            log.info("%s is not in the cache yet: downloading it", weights)
            return Path(fetch())
    except Exception as error:  # of the client, of its transport, or of the disk: to a user all are one
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{weights} cannot be had ({type(error).__name__}: {reason}): check owner, repository and file, log in "
            "with `hf auth login` where it is not public, or download the file and give its path"
        ) from error
