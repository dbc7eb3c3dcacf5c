import re
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_ptbxl import read_rows, write_table

from ecg_lightning.chains import Bandpass, Crop, Notch, ZScore
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.report.ecg_page import ecg_page, plot_records
from ecg_lightning.report.record_facts import find_records, record_notes, record_title
from ecg_lightning.signals import SignalSpec

FILTERED = (Notch(50.0), Bandpass(0.67, 40.0), Crop(), ZScore())


@pytest.fixture
def source(tiny_ptbxl):
    """Record 1 is above 89 and not the safest text; record 4 has no age (made so) and no sex."""
    rows = read_rows(tiny_ptbxl)
    rows[0].update(age="300.0", scp_codes="{'NORM': 80.0, 'SR': 0.0}", burst_noise=" , a $x_$ <b>&  ")
    rows[3]["sex"] = ""
    write_table(tiny_ptbxl, rows)
    return tiny_ptbxl


@pytest.fixture
def store(source, tmp_path):
    prepare(source, tmp_path / "some.h5", SignalSpec(100, 1000), workers=1, progress=False)
    return Store(tmp_path / "some.h5")


def drawn_texts(figure):
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def mm_per_unit(figure):
    """Millimetres of the figure's own size that a unit of the paper takes, across and up."""
    axes = figure.axes[0]
    axes.apply_aspect()
    box, size = axes.get_position(), figure.get_size_inches() * 25.4
    return box.width * size[0] / np.ptp(axes.get_xlim()), box.height * size[1] / np.ptp(axes.get_ylim())


# --- scale ---


@pytest.mark.parametrize("sheet", [False, True])
@pytest.mark.parametrize(
    "leads", [("II",), ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), SignalSpec(100, 1000).leads]
)
def test_a_unit_of_the_paper_measures_a_millimetre_of_the_page(source, tmp_path, leads, sheet):
    prepare(source, tmp_path / "leads.h5", SignalSpec(100, 1000, leads=leads), workers=1, progress=False)
    assert mm_per_unit(ecg_page(Store(tmp_path / "leads.h5"), 0, sheet=sheet)) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_a_pdf_page_is_a4_and_has_25_mm_between_the_seconds(store, here):
    plot_records(store, ["1"], "ecg.pdf")
    content = (here / "ecg.pdf").read_bytes()
    width, height = map(float, re.search(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", content).groups())
    assert (width / 72 * 25.4, height / 72 * 25.4) == pytest.approx((297, 210), abs=0.01)
    figure = ecg_page(store, 0, sheet=True)
    (trace, *_) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 900]
    across = figure.axes[0].transData.transform(np.column_stack([trace.get_xdata(), trace.get_ydata()]))[:, 0]
    assert (across[500] - across[400]) / figure.dpi * 25.4 == pytest.approx(25.0, abs=1e-3)


def test_a_drawing_larger_than_a4_keeps_its_scale_on_a_larger_page(source, tmp_path):
    prepare(
        source,
        tmp_path / "all.h5",
        SignalSpec(100, 1000, leads=SignalSpec(100, 1000).leads[::-1][:11]),
        workers=1,
        progress=False,
    )
    figure = ecg_page(Store(tmp_path / "all.h5"), 0, sheet=True)
    assert figure.get_figheight() * 25.4 > 210
    assert mm_per_unit(figure) == pytest.approx((1.0, 1.0), abs=1e-6)


# --- the head ---


def test_the_head_says_who_and_what(store):
    texts = drawn_texts(ecg_page(store, 0))
    assert texts[:4] == [
        "Record 1 · patient 1000 · fold 1 · male · above 89 years",
        "NORM normal ECG (80 %) · SR sinus rhythm (likelihood unknown)",
        "12 leads, 10 s at 100 Hz, unfiltered copy of the source, 25 mm/s, 10 mm/mV",
        "noted by PTB-XL: burst noise: a $x_$ <b>&",
    ]
    assert not any(text.get_parse_math() for text in ecg_page(store, 0).texts)


def test_unknown_age_and_sex_are_called_unknown(store):
    assert record_title(store, 3) == "Record 4 · patient 1003 · fold 4 · sex unknown · age unknown"


def test_filtered_signals_are_said_to_be_filtered_on_the_picture(source, tmp_path):
    prepare(source, tmp_path / "filtered.h5", SignalSpec(100, 1000, chain=FILTERED), workers=1, progress=False)
    texts = drawn_texts(ecg_page(Store(tmp_path / "filtered.h5"), 0))
    assert "12 leads, 10 s at 100 Hz, filtered, 25 mm/s, 10 mm/mV" in texts
    assert any(text.startswith("FILTERED SIGNAL, not as recorded: notch (frequency 50") for text in texts)


def test_a_source_without_patients_or_notes_has_a_shorter_head():
    store = SimpleNamespace(records={"ecg_id": np.array([3]), "name": np.array(["E07500"])})
    assert record_title(store, 0) == "Record E07500"
    assert record_notes(store, 0) == []


def test_records_are_found_by_name_and_by_id():
    store = SimpleNamespace(
        path="x.h5", num_records=2, records={"ecg_id": np.array([3, 9]), "name": np.array(["A", "B"])}
    )
    assert find_records(store, ["B", "3"]) == [1, 0]
    with pytest.raises(InputError, match=r"no record C: it has 2, among them A, B; choose by ecg_id with --plot"):
        find_records(store, ["C"])


# --- files ---


def test_each_record_has_a_png_of_its_own_by_default(store, here):
    assert plot_records(store, ["17", "18"]) == [
        here.joinpath(n).relative_to(here) for n in ("ecg_17.png", "ecg_18.png")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in here.iterdir())


def test_several_records_are_pages_of_one_pdf(store, here):
    plot_records(store, ["17", "18", "2"], "ecgs.pdf")
    assert len(re.findall(rb"/Type /Page\b", (here / "ecgs.pdf").read_bytes())) == 3


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_record_gives_the_same_file(store, here, kind):
    for name in ("a", "b"):
        plot_records(store, ["17"], f"{name}.{kind}")
    first, second = ((here / f"{name}.{kind}").read_bytes() for name in ("a", "b"))
    assert first == second.replace(b"(b)", b"(a)")  # the title of a PDF
    assert b"Research software" in first


def test_unknown_records_are_refused_with_some_that_are_there(store, here):
    with pytest.raises(InputError, match=r"no record 99; 100: it has 40, among them 1, 5, 9, 13"):
        plot_records(store, ["1", "99", "100"])
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["1"], "ecg.jpg", r"an ECG is drawn as \.png, \.pdf or \.svg: --output ecg\.pdf"),
        (["1", "2"], "ecg.png", r"one picture for 2 records: name a PDF.*--output ecg\.pdf"),
    ],
)
def test_files_that_cannot_hold_the_records_are_refused(store, here, names, output, message):
    with pytest.raises(UsageError, match=message):
        plot_records(store, names, output)
    assert list(here.iterdir()) == []


def test_a_file_that_is_there_is_kept_unless_told_otherwise(store, here):
    (here / "ecg_18.png").write_text("mine")
    with pytest.raises(
        InputError, match=r"ecg_18\.png: there already; name another file, or replace it with --overwrite"
    ):
        plot_records(store, ["17", "18"])
    assert [path.name for path in here.iterdir()] == ["ecg_18.png"]
    assert (here / "ecg_18.png").read_text() == "mine"
    plot_records(store, ["18"], overwrite=True)
    assert (here / "ecg_18.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_left_of_a_file_that_could_not_be_finished(store, here, monkeypatch):
    def full_disk(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **rest: full_disk(path))
    with pytest.raises(OSError, match="no space"):
        plot_records(store, ["17"])
    assert list(here.iterdir()) == []
