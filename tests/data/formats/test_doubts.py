import numpy as np
import pytest
from made_up_formats import LEADS, made_up

from ecg_lightning.data.formats import Layout, Recording, find_recordings, read_recording, warnings_of


def changed(change, leads=LEADS):
    whole = made_up(seconds=5)
    ecg = whole.ecg.copy()
    change(ecg)
    return Recording(ecg, 500.0, tuple(leads), {})


def test_a_plausible_ecg_raises_no_doubt():
    assert warnings_of(made_up(seconds=5)) == []


def test_real_records_raise_no_doubt_but_of_leads_that_are_flat(shared):
    doubts = {}
    paths = find_recordings([shared / "cinc2021", shared / "ptbxl", shared / "ptbxl500"])
    for path in [*paths[:18], *paths[18::6]]:
        if told := warnings_of(read_recording(path, Layout())):
            doubts[path.stem] = told
    flat = ["lead V2, V4, V6 is flat: was its electrode connected?"]
    assert doubts == {"JS20004": flat, "JS20008": flat}


@pytest.mark.parametrize(("scale", "unit"), [(1000, "uV"), (0.001, "V"), (1e6, "uV")])
def test_an_amplitude_that_speaks_against_the_unit_is_told_with_the_flag(scale, unit):
    (told,) = warnings_of(Recording(made_up().ecg * scale, 500.0, LEADS, {}))
    assert f"it looks like {unit}: --unit {unit}" in told


def test_real_records_in_the_wrong_unit_are_told(shared):
    for path in find_recordings([shared / "cinc2021", shared / "ptbxl"])[:60]:
        whole = read_recording(path, Layout())
        for scale, unit in ((1000, "uV"), (0.001, "V")):
            told = warnings_of(Recording(whole.ecg * scale, whole.sampling_rate, whole.leads, {}))
            assert any(f"--unit {unit}" in doubt for doubt in told)


def test_swapped_limb_leads_are_told_by_name():
    def swap(ecg):
        ecg[[3, 4]] = ecg[[4, 3]]

    (told,) = warnings_of(changed(swap))
    assert told.startswith("aVR (")
    assert ", aVL (" in told
    assert "III" not in told
    assert "leads swapped or misnamed?" in told


def test_offsets_of_single_leads_are_no_swap():
    def shift(ecg):
        ecg[2] += 0.3

    assert warnings_of(changed(shift)) == []


def test_a_flat_lead_is_told_by_name():
    def cut(ecg):
        ecg[7] = 0.25

    assert warnings_of(changed(cut)) == ["lead V2 is flat: was its electrode connected?"]


def test_a_record_of_flat_leads_alone_is_told_and_no_more():
    assert warnings_of(Recording(np.zeros((2, 100)), 100.0, ("V1", "V2"), {})) == [
        "lead V1, V2 is flat: was its electrode connected?"
    ]


def test_a_clipped_lead_is_told_by_name():
    def clip(ecg):
        ecg[8] = ecg[8].clip(None, 0.5 * ecg[8].max())

    assert warnings_of(changed(clip)) == ["lead V3 stays at its largest or smallest value: is it clipped?"]


def test_a_value_held_once_at_the_end_is_not_clipping():
    def hold(ecg):
        ecg[8, -60:] = ecg[8].max()

    assert warnings_of(changed(hold)) == []


def test_doubtful_names_are_left_to_conform():
    ecg = made_up(("I", "II", "V1")).ecg
    assert warnings_of(Recording(ecg, 500.0, ("I", "Lead I", "II"), {})) == []
