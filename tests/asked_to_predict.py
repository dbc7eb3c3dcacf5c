"""Asks a run for its predictions by the command line, and what the tests give it to predict."""

import numpy as np
import pandas
from made_up_ptbxl import LEADS, wfdb

from ecg_lightning.cli import main


def record_of(ptbxl, number=1):
    return ptbxl / f"records100/00000/{number:05d}_lr.hea"


def millivolts(ptbxl, number=1):
    """(lead, time)"""
    return wfdb.rdrecord(str(record_of(ptbxl, number).with_suffix(""))).p_signal.T


def write_table(path, ecg, leads=LEADS, unit=""):
    header = ",".join(f"{lead}{unit}" for lead in leads)
    np.savetxt(path, ecg.T, delimiter=",", header=header, comments="", fmt="%.9g")
    return path


def predict(run, output, *arguments, code=0):
    """The table that the command writes, by record."""
    assert main(["predict", "--run", str(run), "--output", str(output), *map(str, arguments)]) == code
    return pandas.read_csv(output).set_index("record")
