"""What a store holds, counted: records per fold, labels per task, statements, ages and sexes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import UNKNOWN, Statements
from ecg_lightning.data.store import Store
from ecg_lightning.report.html import Html, bar, beside, joined_html, paragraph, table
from ecg_lightning.report.record_facts import ABOVE_89, MOST_LIKELIHOOD, statement_meanings

_KINDS = ("diagnostic", "form", "rhythm")
_DECADES = 9
_IN_FOLDS = "Numbered columns: records in that fold"


def folds_section(store: Store, counts: dict[str, Any]) -> Html:
    """Records and patients per fold, and what the folds are for by default; ``counts`` as `label_counts` has them."""
    folds, patients = store.records["strat_fold"], store.records["patient_id"]
    uses = {str(fold): split for split, of_split in counts["splits"].items() for fold in of_split}
    per_fold = counts["records_per_fold"]
    most = max([1, *per_fold.values()])
    rows: list[Sequence[object]] = [
        (fold, uses.get(fold, "none"), bar(num / most), num, len(np.unique(patients[folds == int(fold)])))
        for fold, num in per_fold.items()
    ]
    rows.append(("all", "", "", counts["records"], counts["patients"]))
    return table(("fold", "use by default", "", "records", "patients"), rows, texts=(0, 1, 2))


def tasks_section(store: Store, counts: dict[str, Any]) -> Html:
    """Each task: its classes, and labelled records per split; classes that are no statements counted per fold."""
    tasks = counts["tasks"]
    if not any(task["n_classes"] for task in tasks.values()):
        return paragraph("The store holds no labels: nothing can be trained or tested on it.")
    splits = list(counts["splits"])
    rows = [
        (
            name,
            task["n_classes"],
            sum(num == 0 for num in task["positives_per_class"].values()),
            task["labelled_records"],
            task["unlabelled_records"],
            *(task["labelled_records_per_split"][split] for split in splits),
        )
        for name, task in tasks.items()
    ]
    head = ("task", "classes", "in no record", "records labelled", "not labelled", *splits)
    note = "A task leaves out the records that are not labelled for it; so do the splits here."
    parts = [paragraph(note), table(head, rows)]
    own = [_class_table(name, task) for name, task in tasks.items() if _own_classes(store, task)]
    return joined_html([*parts, beside(own)])


def _own_classes(store: Store, task: dict[str, Any]) -> bool:
    return not set(task["classes"]) <= set(store.statements.codes)


def _class_table(name: str, task: dict[str, Any]) -> Html:
    folds = list(task["labelled_records_per_fold"])
    rows = [
        (label, num, *(task["positives_per_class_per_fold"][label][fold] for fold in folds))
        for label, num in task["positives_per_class"].items()
    ]
    return table((name, "records", *folds), rows, caption=_IN_FOLDS)


def statements_section(store: Store, counts: dict[str, Any]) -> Html:
    """Each statement: meaning, kind, records per fold and in all; the most common first."""
    statements, likelihood = store.statements, store.likelihood
    if not statements.codes:
        return paragraph("The source gives no statements.")
    present = likelihood <= MOST_LIKELIHOOD
    folds = list(counts["records_per_fold"])
    in_fold = np.stack([store.records["strat_fold"] == int(fold) for fold in folds])
    per_fold, total = in_fold.astype(np.float32) @ present.astype(np.float32), present.sum(axis=0)
    meanings, kinds = statement_meanings(statements), statement_kinds(statements)
    rows = [
        (
            code := statements.codes[place],
            int(total[place]),
            f"{100 * total[place] / len(present):.1f} %",
            meanings.get(code, ""),
            kinds[place],
            *(int(num) for num in per_fold[:, place]),
        )
        for place in np.argsort(-total, kind="stable")
    ]
    note = f"{int((total > 0).sum())} of {len(total)} statements occur."
    if statements.of_ptbxl:
        note += " Every likelihood counts, 0 (unknown) included."
    if num_unknown := int((likelihood == UNKNOWN).sum()):
        note += f" In {num_unknown:,} cases it is not known whether a record carries one."
    head = ("code", "records", "share", "meaning", "kind", *folds)
    return joined_html([paragraph(note), table(head, rows, caption=_IN_FOLDS, texts=(0, 3, 4))])


def statement_kinds(statements: Statements) -> list[str]:
    """(statement,) PTB-XL's kinds, with the superclass, where the source has them; else the tasks that it is in."""
    tasks, columns = statements.tasks, statements.columns
    kinds = []
    for place in range(len(statements.codes)):
        if statements.of_ptbxl:
            superclass = str(columns["superclass"][place])
            named = {"diagnostic": f"diagnostic ({superclass})" if superclass else "diagnostic"}
            kinds.append(", ".join(named.get(kind, kind) for kind in _KINDS if columns[kind][place]))
        else:
            kinds.append(", ".join(name for name, task in tasks.items() if task.label_of_statement[place]))
    return kinds


def people_section(store: Store) -> Html:
    """Records by age, in tens of years, and sex; ages above 89 and unknown ones in lines of their own."""
    if "age" not in store.records or "sex" not in store.records:
        return paragraph("The source gives no ages, or no sexes.")
    age, sex = store.records["age"].astype(float), store.records["sex"]
    names = [*(f"{10 * ten} to {10 * ten + 9}" for ten in range(_DECADES)), "above 89", "unknown"]
    decade = np.where(np.isnan(age), _DECADES + 1, np.minimum(np.nan_to_num(age) // 10, _DECADES)).astype(int)
    female, male, other = (np.bincount(decade[of], minlength=len(names)) for of in (sex == 1, sex == 0, sex < 0))
    most = max(1, int(female.max()), int(male.max()))
    rows: list[Sequence[object]] = [
        (name, int(women), bar(women / most, "leftward"), bar(men / most, "second"), int(men), int(rest))
        for name, women, men, rest in zip(names, female, male, other, strict=True)
    ]
    rows.append(("all", int(female.sum()), "", "", int(male.sum()), int(other.sum())))
    head, shown = ("age in years", "female", "", "", "male", "sex unknown"), 6 if other.any() else 5
    medians = f"Median age: women {_median(age[sex == 1])}, men {_median(age[sex == 0])}."
    return joined_html([paragraph(medians), table(head[:shown], [row[:shown] for row in rows], caption="Records")])


def _median(age: NDArray[np.floating]) -> str:
    """PTB-XL's 300 stands for an age above 89: as good as any for a median, as long as it is not the median."""
    known = age[~np.isnan(age)]
    if not len(known):
        return "unknown"
    middle = float(np.median(known))
    return "above 89" if middle > (ABOVE_89 - 100) / 2 else f"{middle:g}"
