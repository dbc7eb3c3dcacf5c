"""Imported by the process from which a loader's workers are forked, and by nothing else.

It stays when a whole group of processes receives a signal, as its workers do (`ecg_lightning.data.loading`), and ends
with the process that trains.
"""

import signal

import ecg_lightning.data.loading  # noqa: F401 - what every worker reads by

for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_IGN)
