"""Runs several commands in one set of processes: to start one takes longer than to train a tiny network.

``python several_commands.py FILE.json``: a list of lists of arguments for the command line. Writes the exit codes of
this process to ``FILE.RANK``.
"""

import json
import os
import sys
from pathlib import Path

from ecg_lightning.cli import main

if __name__ == "__main__":
    asked = Path(sys.argv[1])
    codes = [main(arguments) for arguments in json.loads(asked.read_text())]
    asked.with_suffix(f".{os.environ.get('RANK', '0')}").write_text(json.dumps(codes))
