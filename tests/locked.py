"""A data set that needs a lock, as code under Python does: of an allocator, a loader of libraries, a queue."""

import threading
from collections.abc import Sequence

LOCK = threading.Lock()


class Locked:
    """Its batches say whether the lock could be had."""

    def __getitems__(self, _: Sequence[int]) -> bool:
        if had := LOCK.acquire(timeout=2):
            LOCK.release()
        return had

    def __len__(self) -> int:
        return 1
