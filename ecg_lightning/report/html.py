"""The frame of a page that stands alone: no network, no script; light and dark, screen and paper."""

import base64
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --page: #fff; --band: #f4f6f8;
  --accent: #1d4fa3; --first: #1d6fa5; --second: #b5651d; --warn: #9a1b1b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #363d46; --page: #14181d;
  --band: #1c2128; --accent: #8ab4f8; --first: #5aa9d6; --second: #e09a55; --warn: #ff9a8f; }
  img { filter: brightness(.88); } figure.chart img { filter: invert(.92) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0 .8rem; max-width: 52rem; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: .8rem 0; padding: 0; }
.soft { color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
.wide { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .22rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); background: var(--band); white-space: nowrap; }
.number { text-align: right; white-space: nowrap; } .list td { white-space: nowrap; }
table.counts tbody th { position: sticky; left: 0; background: var(--page); font-weight: 600; }
table.facts th { font-weight: 400; color: var(--soft); white-space: nowrap; }
table.facts td { overflow-wrap: anywhere; }
td .bar, td .bar i { display: block; height: .8rem; } td .bar { margin-top: .3rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; } .beside > * { max-width: 100%; }
.none { color: var(--soft); opacity: .55; }
td .bar { width: 11rem; } td .bar.leftward i { margin-left: auto; }
td .bar i { background: var(--first); } td .bar.second i { background: var(--second); }
article { break-inside: avoid; }
figure { margin: .4rem 0 1.6rem; overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 46rem; height: auto; border: 1px solid var(--line); }
figcaption, p.caption { color: var(--soft); font-size: .875rem; max-width: 62rem; margin-top: .4rem; }
p.caption { margin: 1.2rem 0 .3rem; break-after: avoid; }
figure.chart, figure.paper { overflow-x: visible; } figure .wide { margin: 0; }
figure.chart img, figure.paper img { border: 0; }
table.tight { font-size: .79rem; } .tight th, .tight td { padding: .2rem .3rem; }
details { margin: .4rem 0 1.2rem; } summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.4; background: var(--band); padding: .7rem; }
.notice { border-left: 4px solid var(--warn); background: var(--band); padding: .5rem .9rem; margin: .8rem 0;
  max-width: 62rem; } .notice p { margin: .2rem 0; max-width: none; }
dl { max-width: 52rem; } dt { font-weight: 600; } dd { margin: 0 0 .5rem 1rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); font-size: .85rem; }
@media (max-width: 40rem) { body { padding: 1rem .75rem 2rem; } table.facts, table.facts tbody { display: block; }
  table.facts tr, table.facts th, table.facts td { display: block; border: 0; padding: 0; }
  table.facts tr { padding: .3rem 0; border-bottom: 1px solid var(--line); } td .bar { width: 3.4rem; }
  th, td { padding: .2rem .4rem; } }
@media print { @page { margin: 12mm; } body { max-width: none; padding: 0; font-size: 10pt; }
  :root { --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --band: #eee; --accent: #000;
    --first: #1d6fa5; --second: #b5651d; --warn: #9a1b1b; }
  nav { display: none; } .wide, figure { overflow: visible; }
  table { font-size: 7.5pt; } table.tight { font-size: 7.1pt; }
  th, td { padding: .1rem .3rem; } .tight th, .tight td { padding: .1rem .2rem; }
  figure img, figure.chart img { min-width: 0 !important; filter: none; }
  figure { break-inside: avoid; } figure.paper img { max-height: 98mm; width: auto !important; }
  article:has(+ figure) { break-after: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7pt; }
  details.shown::details-content { content-visibility: visible; height: auto; } h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; } td .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


class Html(str):
    """Text that is HTML already; all other text is escaped on its way into a page."""


class Section(NamedTuple):
    """A part of a page, with its entry in the list at the top."""

    anchor: str
    heading: str
    body: Html


def page(title: str, lead: Html, sections: Sequence[Section], footer: Html) -> str:
    """A whole page: title, an opening, links to the sections, the sections, a footer."""
    links = joined_html(f'<li><a href="#{s.anchor}">{escape(s.heading)}</a></li>' for s in sections)
    bodies = joined_html(
        f'<section id="{s.anchor}">\n<h2>{escape(s.heading)}</h2>\n{s.body}\n</section>' for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{lead}
</header>
<nav aria-label="Sections"><ul>
{links}
</ul></nav>
<main>
{bodies}
</main>
<footer>
{footer}
</footer>
</body>
</html>
"""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    kind: str = "counts",
    texts: Collection[int] = (0,),
) -> Html:
    """A table that scrolls sideways where it is too wide; the columns ``texts`` are text, the others numbers.

    The first cell of a row is its heading. Cells are escaped but for those that are `Html`.
    """
    top = "".join(f'<th scope="col"{_number(place, texts)}>{_cell(name)}</th>' for place, name in enumerate(head))
    body = "\n".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f"<td{_number(place, texts)}>{_cell(cell)}</td>" for place, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    above += f"<thead><tr>{top}</tr></thead>" if head else ""
    return Html(f'<div class="wide"><table class="{kind}">{above}\n<tbody>\n{body}\n</tbody></table></div>')


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Names and what they are, a line each."""
    return table((), rows, kind="facts", texts=(0, 1))


def paragraph(text: str, kind: str = "") -> Html:
    """``text`` as a paragraph."""
    return Html(f'<p class="{kind}">{_cell(text)}</p>' if kind else f"<p>{_cell(text)}</p>")


def heading(text: str) -> Html:
    """The heading of a part of a section."""
    return Html(f"<h3>{_cell(text)}</h3>")


def article(anchor: str, parts: Iterable[str]) -> Html:
    """What a link within the page can lead to."""
    return Html(f'<article id="{escape(anchor)}">\n{joined_html(parts)}\n</article>')


def picture(png: bytes, text: str) -> Html:
    """A picture within the page; ``text`` says what it shows to those who do not see it."""
    data = base64.b64encode(png).decode()
    return Html(f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>')


def captioned(png: bytes, text: str, caption: str, *, kind: str, inches: float) -> Html:
    """A picture with its caption, as wide as it was drawn; a ``chart`` turns dark with the page.

    Args:
        png: the picture.
        text: what it shows, for those who do not see it.
        caption: below it.
        kind: ``chart`` or ``paper``.
        inches: width of the drawing: its letters are as large as those of other pictures.
    """
    data = base64.b64encode(png).decode()
    size = f"width:{inches * 7.4:.1f}rem;max-width:100%;min-width:{inches * 4.4:.1f}rem"
    return Html(
        f'<figure class="{escape(kind)}"><div class="wide"><img alt="{escape(text)}" style="{size}" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{_cell(caption)}</figcaption></figure>'
    )


def details(summary: str, parts: Iterable[str], kind: str = "shown") -> Html:
    """Parts that are folded up until they are asked for; ``shown`` ones are open on paper, ``screen`` ones are not."""
    return Html(f'<details class="{kind}"><summary>{_cell(summary)}</summary>\n{joined_html(parts)}\n</details>')


def verbatim(text: str) -> Html:
    """``text`` as it is, in letters of one width."""
    return Html(f"<pre>{escape(text)}</pre>")


def link(anchor: str, text: str) -> Html:
    """A link within the page."""
    return Html(f'<a href="#{escape(anchor)}">{_cell(text)}</a>')


def bar(share: float, kind: str = "") -> Html:
    """A bar of ``share`` (0 to 1) of its cell."""
    return Html(f'<span class="bar {kind}"><i style="width:{100 * share:.1f}%"></i></span>')


def joined_html(parts: Iterable[str]) -> Html:
    """HTML below HTML."""
    return Html("\n".join(parts))


def beside(parts: Iterable[str]) -> Html:
    """Parts side by side where there is room."""
    return Html(f'<div class="beside">\n{joined_html(parts)}\n</div>')


def _cell(content: object) -> str:
    if isinstance(content, Html):
        return content
    if isinstance(content, int):
        return f"{content:,}" if content else '<span class="none">0</span>'
    return escape(str(content))


def _number(place: int, texts: Collection[int]) -> str:
    return "" if place in texts else ' class="number"'
