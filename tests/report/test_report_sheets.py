import csv
import io
import math
import re

from hypothesis import given
from hypothesis import strategies as st
from page_reader import read_page

from ecg_lightning.report.html import Section, page
from ecg_lightning.report.sheets import Estimate, Sheet, of_latex, to_csv, to_html, to_latex, to_markdown

ATTACK = '<script>alert("1")</script>'
SHEET = Sheet(
    "some",
    f"Caption of {ATTACK} & 5 %.",
    ("label", "n", "AUROC", "gain"),
    (
        (ATTACK, 3, Estimate(0.81234567, 0.7, 0.9), Estimate(-0.0123, signed=True)),
        ("a|b_c$", 0, Estimate(math.nan), None),
    ),
)
texts = st.text(st.sampled_from("ab |\\`$&%_{}[]~^<>#\"'é\N{EN DASH}\N{MINUS SIGN}\N{DAGGER}≥·"), max_size=30)


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def test_people_see_rounded_figures_with_their_interval_and_dashes_for_nothing():
    assert str(Estimate(0.81234, 0.7, 0.9)) == "0.812 [0.700, 0.900]"
    assert str(Estimate(-0.0123, -0.1, 0.05, signed=True)) == "\N{MINUS SIGN}0.012 [\N{MINUS SIGN}0.100, +0.050]"
    assert str(Estimate(4.567, digits=1, signed=True, unit=" %")) == "+4.6 %"
    assert str(Estimate(math.nan)) == "\N{EN DASH}"


def test_a_csv_has_full_precision_and_a_column_for_either_end_of_an_interval():
    head, first, second = rows_of(to_csv(SHEET))
    assert head == ["label", "n", "AUROC", "AUROC low", "AUROC high", "gain"]
    assert first == [ATTACK, "3", "0.81234567", "0.7", "0.9", "-0.0123"]
    assert second == ["a|b_c$", "0", "", "", "", ""]


@given(st.lists(texts, min_size=1, max_size=4))
def test_any_text_comes_back_out_of_a_csv(cells):
    assert rows_of(to_csv(Sheet("s", "", tuple(map(str, range(len(cells)))), (tuple(cells),))))[1] == cells


def test_html_holds_text_never_markup():
    found = read_page(page("t", to_html(SHEET, 3), [Section("a", "b", to_html(SHEET, 4))], to_html(SHEET, 5)))
    assert "script" not in found.tags
    assert f"Table 3. Caption of {ATTACK}" in found.text
    assert ATTACK in found.table_of_many("label")


@given(texts, texts)
def test_markdown_has_as_many_cells_in_every_row_whatever_they_hold(name, cell):
    text = to_markdown(Sheet("s", "caption", ("a", name), ((cell, "x"),)))
    rows = text.split("\n\n", 1)[1].rstrip("\n").split("\n")
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {3}


@given(texts)
def test_latex_lets_no_special_letter_through(text):
    escaped = of_latex(text)
    known = (
        r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\text(less|greater|bar|periodcentered)\{\}"
        r"|\\dag\{\}|\$-\$|\$\\geq\$|\\[{}&%$#_]"
    )
    assert not re.search(r"[\\{}&%$#_~^<>|]", re.sub(known, "", escaped))


def test_latex_is_a_table_with_rules_whose_rows_have_as_many_columns():
    lines = to_latex(SHEET).splitlines()
    assert r"\begin{tabular}{lrrr}" in lines
    assert r"a\textbar{}b\_c\$ & 0 & -- & -- \\" in lines
    rows = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows if row != r"\midrule"} == {3}
