"""What is told of many records on the screen: what was done to how many, and a table of those with something odd."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def counted(notes: Iterable[str]) -> list[str]:
    """Each note once, the most frequent first, with the number of records it is about.

    >>> counted(["derived", "cut", "cut"])
    ['cut: 2 records', 'derived: 1 record']
    """
    return [f"{note}: {number} record{'s' if number > 1 else ''}" for note, number in Counter(notes).most_common()]


def print_table(
    console: "Console",
    title: str,
    columns: tuple[str, str],
    rows: Sequence[tuple[object, str]],
    most: int | None = None,
) -> None:
    """A table of records with a text each, none where there are no ``rows``; of more than ``most`` the first ones."""
    from rich.table import Column, Table

    if not rows:
        return
    table = Table(Column(columns[0], overflow="fold"), columns[1], title=f"{title}: {len(rows)}")
    for name, text in rows[:most]:
        table.add_row(str(name), text)
    if (left := len(rows) - len(rows[:most])) > 0:
        table.add_row("...", f"and {left} more")
    console.print(table)
