import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecg_lightning.report.ecg_paper import MM_PER_MV, ecg_paper, layout, plan_paper

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
BLUE = "#1D4FA3"


@pytest.fixture
def axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def traces(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 100]


def one_spike(*millivolts, at=500):
    """A record of 10 s at 100 Hz, zero but for a spike in each lead."""
    ecg = np.zeros((len(millivolts), 1000))
    ecg[:, at] = millivolts
    return ecg


def test_a_second_is_25_mm_wide_and_a_millivolt_10_mm_tall(axes):
    ecg = np.zeros((1, 1000))
    ecg[0, 500] = 1.0
    ecg_paper(axes, ecg, 100.0, ["II"])
    trace = max(axes.lines, key=lambda line: len(line.get_xdata()))
    across, up = np.asarray(trace.get_xdata()), np.asarray(trace.get_ydata())
    assert across[500] - across[400] == pytest.approx(25.0)
    assert up[500] - up[499] == pytest.approx(10.0)
    assert axes.get_aspect() == 1.0


def test_twelve_leads_stand_in_three_rows_of_four_over_a_rhythm_strip(axes):
    ecg_paper(axes, np.zeros((12, 1000)), 100.0, LEADS)
    names = texts(axes)[:13]
    assert names == ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II"]
    segments = list(layout(LEADS, 10.0))
    assert [(s.start, s.stop) for s in segments[:4]] == [(0.0, 2.5), (2.5, 5.0), (5.0, 7.5), (7.5, 10.0)]
    assert (segments[-1].row, segments[-1].stop) == (3, 10.0)


def test_each_lead_is_drawn_from_its_own_row_at_its_own_time(axes):
    ecg = np.arange(12)[:, None] * 0.01 + np.arange(1000)[None, :] * 1e-6
    ecg_paper(axes, ecg, 100.0, LEADS)
    traces = [line for line in axes.lines if len(line.get_xdata()) > 200]
    heights = [np.asarray(line.get_ydata()) for line in traces]
    v4_less_i = heights[3][0] - heights[0][0]  # same row of the paper, lead 9 and lead 0, 7.5 s apart
    assert v4_less_i == pytest.approx((0.09 + 750e-6) * 10)


def test_leads_other_than_the_twelve_get_a_row_each():
    assert [(s.lead, s.row, s.stop) for s in layout(["II", "V5"], 8.0)] == [("II", 0, 8.0), ("V5", 1, 8.0)]


def test_a_record_longer_than_10_s_is_drawn_up_to_10_s(axes):
    ecg_paper(axes, np.zeros((12, 3000)), 100.0, LEADS)
    assert max(np.max(np.asarray(line.get_xdata())) for line in axes.lines) <= axes.get_xlim()[1]


# --- room for large voltages ---


def test_rows_move_apart_until_their_traces_do_not_touch():
    ecg = one_spike(-1.8, 1.7)
    paper = plan_paper(ecg, 100.0, ["V1", "V2"])
    assert paper.zeros[0] - paper.zeros[1] == 40.0
    assert not paper.crossing
    assert paper.remark == ""


def test_voltages_at_other_times_do_not_move_rows():
    paper = plan_paper(np.concatenate([one_spike(-1.8, at=100), one_spike(1.7, at=900)]), 100.0, ["V1", "V2"])
    assert paper.zeros[0] - paper.zeros[1] == 25.0


def test_a_lead_that_reaches_into_another_row_is_blue_and_named_with_its_range(axes):
    ecg_paper(axes, one_spike(-11.1, 0.5, 0.2), 100.0, ["V4", "V5", "V6"])
    assert [line.get_color() == BLUE for line in traces(axes)] == [True, False, False]
    assert "Blue, over other rows or the edge: V4 (\N{MINUS SIGN}11.1 to 0.0 mV)." in texts(axes)


def test_a_lead_that_leaves_the_paper_is_named():
    for millivolts in (6.0, -6.0):
        paper = plan_paper(one_spike(millivolts), 100.0, ["V4"])
        assert paper.crossing == {"v4"}
        assert "V4 (" in paper.remark


def test_rows_stay_in_place_without_room():
    paper = plan_paper(one_spike(-1.8, 1.7), 100.0, ["V1", "V2"], make_room=False)
    assert paper.zeros[0] - paper.zeros[1] == 25.0
    assert paper.crossing == {"v1"}


@given(arrays(np.float64, (12, 250), elements=st.floats(-4, 4, width=32)), st.sampled_from([(12, 25.0), (3, 100.0)]))
def test_no_two_leads_touch_unless_one_of_them_is_named(ecg, shape):
    num_leads, rate = shape
    paper = plan_paper(ecg[:num_leads], rate, LEADS[:num_leads])
    places = {name.lower(): place for place, name in enumerate(LEADS)}
    for upper in paper.segments:
        for lower in paper.segments:
            start, stop = max(upper.start, lower.start), min(upper.stop, lower.stop)
            named = {upper.lead.lower(), lower.lead.lower()} & paper.crossing
            if lower.row != upper.row + 1 or start >= stop or named:
                continue
            points = slice(round(start * rate), round(stop * rate))
            gap = paper.zeros[upper.row] - paper.zeros[lower.row]
            between = (ecg[places[lower.lead.lower()], points] - ecg[places[upper.lead.lower()], points]) * MM_PER_MV
            assert between.max() <= gap
    assert all(0 < zero < paper.height and zero % 5 == 0 for zero in paper.zeros)


def test_names_of_the_first_leads_stand_over_the_pulse_and_others_beside_their_trace(axes):
    ecg = one_spike(*[0.0] * 12)
    ecg[3, 260:300] = 1.3  # aVR, where its name would stand
    ecg_paper(axes, ecg, 100.0, LEADS)
    names = {text.get_text(): text for text in axes.texts}
    assert names["I"].get_position()[0] == 1.0
    assert names["aVR"].get_position()[1] < names["V1"].get_position()[1]
    assert all(text.get_zorder() < traces(axes)[0].get_zorder() for text in axes.texts[:13])


# --- long and short records ---


def test_the_rhythm_strip_of_a_long_record_goes_on_in_further_rows(axes):
    strip = [segment for segment in layout(LEADS, 25.0) if segment.row >= 3]
    assert [(s.lead, s.start, s.stop, s.left) for s in strip] == [
        ("II", 0.0, 10.0, 0.0),
        ("II", 10.0, 20.0, 10.0),
        ("II", 20.0, 25.0, 20.0),
    ]
    ecg_paper(axes, np.zeros((12, 2500)), 100.0, LEADS)
    assert "II  20 s" in texts(axes)
    assert {text for text in texts(axes) if "first" in text} == set()


def test_each_row_of_a_strip_shows_its_own_ten_seconds(axes):
    ecg = np.arange(2500)[None] * 1e-3
    ecg_paper(axes, ecg, 100.0, ["II"])
    zeros = plan_paper(ecg, 100.0, ["II"]).zeros
    for row, line in enumerate(traces(axes)):
        assert line.get_xdata()[0] == 10.0
        assert line.get_ydata()[0] - zeros[row] == pytest.approx(10.0 * row)


@pytest.mark.parametrize(
    ("leads", "seconds", "remark"),
    [
        (("II",), 100, "The first 60 s of 100 s."),
        (("II",), 60, ""),
        (("I", "II"), 25, "The first 10 s of 25 s."),
        (LEADS, 100, "The first 60 s of 100 s."),
    ],
)
def test_what_is_not_shown_of_a_long_record_is_said(leads, seconds, remark):
    assert plan_paper(np.zeros((len(leads), 10 * seconds)), 10.0, leads).remark == remark


def test_a_record_of_four_seconds_has_leads_of_one():
    segments = list(layout(LEADS, 4.0))
    assert [(s.start, s.stop) for s in segments[:4]] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
