import pytest

from ecg_lightning.data.formats.lead_names import is_lead, lead_name, places_of, unit_in
from ecg_lightning.signals import LEADS_12


@pytest.mark.parametrize(
    ("spelled", "lead"),
    [
        ("Lead I", "I"),
        ("I (mV)", "I"),
        ("I [uV]", "I"),
        ("i", "I"),
        ("DII", "II"),
        ("D3", "III"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("avr", "aVR"),
        ("Lead aVL", "aVL"),
        ("ECG I", "I"),
        ("ECG Lead II", "II"),
        ("ECG_aVF", "aVF"),
        ("LEADIII", "III"),
        ("V1.", "V1"),
        (" v6 ", "V6"),
        ("C4", "V4"),
        ("'V5'", "V5"),
        ("Lead I (Einthoven)", "I"),
        ("V3R", "V3R"),
    ],
)
def test_spellings_of_the_wild_mean_their_lead(spelled, lead):
    assert lead_name(spelled) == lead
    assert is_lead(spelled)


@pytest.mark.parametrize("spelled", ["-aVR", "MLII", "V1-V2", "ABP", "", "V10", "CM5", "Leads", "avg", "IV"])
def test_other_names_are_kept_and_taken_for_no_lead(spelled):
    assert lead_name(spelled) == spelled
    assert not is_lead(spelled)


def test_each_of_the_twelve_means_itself_in_any_case():
    assert [lead_name(lead.upper()) for lead in LEADS_12] == [lead_name(lead.lower()) for lead in LEADS_12]
    assert tuple(map(lead_name, LEADS_12)) == LEADS_12


def test_a_unit_is_found_behind_the_name():
    assert unit_in("Lead I (uV)") == "uV"
    assert unit_in("V1[ mV ]") == "mV"
    assert unit_in("V1") is None


def test_two_spellings_of_one_lead_are_told():
    with pytest.raises(ValueError, match="Lead I and MDC_ECG_LEAD_I are one lead"):
        places_of(["Lead I", "II", "MDC_ECG_LEAD_I"])
