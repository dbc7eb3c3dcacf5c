"""Reads an HTML page as strictly as the standard library can."""

from html.parser import HTMLParser

_ALONE = {"meta", "img", "br", "hr", "link", "input"}
_LICENCE = "https://creativecommons.org/licenses/by/4.0/"


class PageReader(HTMLParser):
    """Tags in order, ids, references, text, and the rows of each table; every tag must be closed by its own end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [(tag, value or "") for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _ALONE:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> stands inside another tag, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def external(self) -> list[tuple[str, str]]:
        """What a browser would fetch, or a link that leads out, but for the licence."""
        inside = ("#", "data:image/png;base64,")
        return [one for one in self.references if not one[1].startswith(inside) and one != ("a", _LICENCE)]

    def table_of(self, first_heading: str) -> dict[str, list[str]]:
        """The rows of the table whose first column is so named, by their first cell."""
        (rows,) = [rows for rows in self.tables if rows and rows[0] and rows[0][0] == first_heading]
        return {row[0]: row[1:] for row in rows}

    def table_of_many(self, first_heading: str) -> dict[str, list[str]]:
        """As `table_of`, of the first of several such tables."""
        rows = next(rows for rows in self.tables if rows and rows[0] and rows[0][0] == first_heading)
        return {row[0]: row[1:] for row in rows}


def read_page(text: str) -> PageReader:
    """The page; fails for tags that are not closed and ids given twice."""
    reader = PageReader()
    reader.feed(text)
    reader.close()
    assert not reader.open, f"not closed: {reader.open}"
    assert len(set(reader.ids)) == len(reader.ids), "an id stands twice"
    anchors = [place[1:] for _, place in reader.references if place.startswith("#")]
    assert set(anchors) <= set(reader.ids), "a link leads nowhere"
    return reader
