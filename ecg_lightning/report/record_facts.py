"""What a store says of one record, in words: for the head of a picture and of a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files

import numpy as np

from ecg_lightning.data.labels import Statements
from ecg_lightning.data.ptbxl import TEXT_COLUMNS
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, joined

ABOVE_89 = 300.0
"""What PTB-XL writes for the age of everybody above 89."""
SEXES = {1: "female", 0: "male", -1: "sex unknown"}
MOST_LIKELIHOOD = 100
"""Above it a likelihood says that the statement is absent, or not known."""
_NAMED = 10


def find_records(store: Store, names: Sequence[str]) -> list[int]:
    """Rows of the records with these ids, or names where the store has a column of names.

    Raises:
        InputError: naming those that are not there, and some that are.
    """
    ids = {str(ecg_id): row for row, ecg_id in enumerate(store.records["ecg_id"].tolist())}
    given = store.records["name"].tolist() if "name" in store.records else []
    rows = {**ids, **{str(name): row for row, name in enumerate(given)}}
    if missing := [str(name) for name in names if str(name) not in rows]:
        known = given or list(ids)
        some = ", ".join(map(str, known[:: max(1, len(known) // _NAMED)][:_NAMED]))
        raise InputError(
            f"store {store.path} has no record {joined(missing)}: it has {store.num_records}, among them {some}; "
            "choose by ecg_id with --plot ECG_ID"
        )
    return [rows[str(name)] for name in names]


def record_name(store: Store, row: int) -> str:
    """The record's name where the source names its records, else its ecg_id."""
    return str(store.records["name"][row] if "name" in store.records else store.records["ecg_id"][row])


def record_title(store: Store, row: int) -> str:
    """Record, patient, fold, sex and age in one line; what the source does not have is left out."""
    records = store.records
    parts = [f"Record {record_name(store, row)}"]
    for column, word in (("patient_id", "patient"), ("strat_fold", "fold")):
        if column in records:
            parts.append(f"{word} {records[column][row]}")
    if "sex" in records:
        parts.append(SEXES.get(int(records["sex"][row]), "sex unknown"))
    if "age" in records:
        parts.append(age_in_words(float(records["age"][row])))
    return " · ".join(parts)


def age_in_words(age: float) -> str:
    """Years; PTB-XL's 300 as what it stands for.

    >>> age_in_words(56.0), age_in_words(300.0), age_in_words(float("nan"))
    ('56 years', 'above 89 years', 'age unknown')
    """
    if np.isnan(age):
        return "age unknown"
    return "above 89 years" if age == ABOVE_89 else f"{age:g} years"


def record_statements(store: Store, row: int) -> list[str]:
    """The record's statements, the likeliest first: code, meaning and likelihood (PTB-XL writes 0 for unknown)."""
    likelihood = store.likelihood[row].astype(int)
    meanings = statement_meanings(store.statements)
    carried = np.flatnonzero(likelihood <= MOST_LIKELIHOOD)
    words = []
    for place in sorted(carried.tolist(), key=lambda place: -likelihood[place]):
        code = store.statements.codes[place]
        sure = f"{likelihood[place]} %" if likelihood[place] else "likelihood unknown"
        words.append(" ".join(filter(None, (code, meanings.get(code, ""), f"({sure})"))))
    return words


def record_notes(store: Store, row: int) -> list[str]:
    """What PTB-XL's columns note of the record's signal: ``baseline drift: II,III``."""
    noted = {name: str(store.records[name][row]).strip(" ,") for name in TEXT_COLUMNS if name in store.records}
    return [f"{name.replace('_', ' ')}: {text}" for name, text in noted.items() if text]


def signal_in_words(store: Store) -> str:
    """Leads, length, rate."""
    stored = store.stored
    seconds, leads = stored.num_time_points / stored.sampling_rate, len(stored.leads)
    return f"{leads} {'lead' if leads == 1 else 'leads'}, {seconds:g} s at {stored.sampling_rate:g} Hz"


def chain_in_words(store: Store) -> str:
    """The steps that were run over the stored signals, with their numbers; empty for a plain copy."""
    steps = []
    for step in store.stored.chain:
        numbers = ", ".join(f"{name} {value:g}" if isinstance(value, float | int) else f"{name} {value}"
                            for name, value in asdict(step).items())  # fmt: skip
        steps.append(f"{step.name.replace('_', ' ')} ({numbers})" if numbers else step.name.replace("_", " "))
    return ", ".join(steps)


def statement_meanings(statements: Statements) -> Mapping[str, str]:
    """What each code says: as the source tells, or as PTB-XL does of its own codes; no entry where nobody tells."""
    if "description" in statements.columns:
        return dict(zip(statements.codes, map(str, statements.columns["description"]), strict=True))
    return _ptbxl_meanings() if statements.of_ptbxl else {}


@cache
def _ptbxl_meanings() -> dict[str, str]:
    """The column ``description`` of PTB-XL's own table (CC BY 4.0)."""
    text = files("ecg_lightning.data").joinpath("scp_statements.csv").read_text(encoding="utf-8")
    return {row[""]: row["description"] for row in csv.DictReader(io.StringIO(text))}
