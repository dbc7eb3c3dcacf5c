import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import read_page

from ecg_lightning.report.html import Html, Section, article, bar, facts, heading, link, page, paragraph, picture, table

ATTACK = "<script>alert('x')</script>\"><img src=x onerror=y>&amp;"


def a_page(body, title="A title"):
    return page(title, Html(""), [Section("part", "Part", Html(body))], Html("<p>foot</p>"))


@pytest.mark.parametrize(
    "made",
    [
        lambda text: table([text, "n"], [(text, text), (text, 5)], caption=text),
        lambda text: facts([(text, text)]),
        lambda text: paragraph(text),
        lambda text: heading(text),
        lambda text: article(text, [link(text, text)]),
        lambda text: article(text, [paragraph(text)]),
        lambda text: picture(b"\x89PNG", text),
    ],
)
def test_text_is_text_and_never_markup(made):
    plain, attacked = (read_page(a_page(made(text), title=text)) for text in ("harmless", ATTACK))
    assert attacked.tags == plain.tags
    assert attacked.text == plain.text.replace("harmless", ATTACK)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_comes_out_as_it_went_in(text):
    assert text in read_page(a_page(paragraph(text))).text


def test_a_page_has_its_sections_linked_and_needs_nothing_from_outside():
    found = read_page(a_page(bar(0.5)))
    assert ("a", "#part") in found.references
    assert "part" in found.ids
    assert not found.external
    assert {"script", "link", "iframe"}.isdisjoint(found.tags)


def test_whole_numbers_have_their_thousands_parted_and_zeros_step_back():
    made = table(["a", "b", "c"], [("x", 21799, 0)])
    assert "21,799" in made
    assert '<span class="none">0</span>' in made


def test_light_dark_and_print_are_all_styled():
    text = a_page("")
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem", "color-scheme: light dark"):
        assert rule in text
