"""What is simulated fulfils its own statement, measured on the noise-free leads as a reader would."""

import numpy as np
import pytest
from ecg_measures import (
    RATE,
    beats,
    heart_rate,
    inner_beats,
    lead,
    pr_interval,
    qrs_edges,
    qrs_extremes,
    qrs_width,
    rr,
    st_level,
    steepness,
    t_level,
)

from ecg_lightning.data.synthesize.combinations import chronic_statements, record_statements
from ecg_lightning.data.synthesize.record import at_100_hz, ecg_of, make_heart, plan_record, plan_with
from ecg_lightning.data.synthesize.rhythm import fibrillatory_waves
from ecg_lightning.data.synthesize.statements import DIAGNOSES, RHYTHMS, SIMULATED, can_stand_together
from ecg_lightning.errors import InputError

SEEDS = range(6)


def simulated(*codes, seed=0, severity=0.5, noisy=False):
    """(lead, time) in mV."""
    plan = plan_with(codes, seed=seed, severity=severity)
    return ecg_of(plan, make_heart(plan), noisy=noisy) / 1000


def several(*codes):
    """Patients and severities."""
    return [simulated(*codes, seed=seed, severity=seed / len(SEEDS)) for seed in SEEDS]


@pytest.mark.parametrize(("code", "low", "high"), [("SBRAD", 38, 60), ("SR", 60, 100), ("STACH", 100, 145)])
def test_sinus_rhythms_have_the_rate_of_their_name(code, low, high):
    assert all(low < heart_rate(ecg) < high for ecg in several(code))


def test_sinus_arrhythmia_swings_by_more_than_120_ms_and_sinus_rhythm_by_less():
    assert all(np.ptp(rr(ecg)) > 0.12 for ecg in several("SARRH"))
    assert all(np.ptp(rr(ecg)) < 0.12 for ecg in several("SR"))


def test_fibrillation_is_irregular_and_has_no_p():
    for seed in SEEDS:
        heart = make_heart(plan_with(["AFIB"], seed=seed))
        ecg = simulated("AFIB", seed=seed)
        assert np.std(rr(ecg)) / np.mean(rr(ecg)) > 0.12
        assert heart.rhythm == "fibrillation"
    irregular = np.mean([np.std(rr(ecg)) / np.mean(rr(ecg)) for ecg in several("AFIB")])
    regular = np.mean([np.std(rr(ecg)) / np.mean(rr(ecg)) for ecg in several("SR")])
    assert irregular > 5 * regular


def test_fibrillatory_waves_beat_350_to_600_times_a_minute():
    time = (np.arange(5000) / RATE).astype(np.float32)
    for seed in SEEDS:
        waves = fibrillatory_waves(np.random.default_rng(seed), time)
        spectrum = np.abs(np.fft.rfft(waves[2] * np.hanning(5000)))
        assert 300 < 60 * np.fft.rfftfreq(5000, 1 / RATE)[spectrum.argmax()] < 620


def test_p_stands_before_each_qrs_in_sinus_rhythm_only():
    def before_qrs(ecg):
        """Correlation of the beats' 240 ms before their QRS, which a P wave at a fixed place makes alike."""
        cuts = [lead(ecg, "II")[begin - 120 : begin - 5] for begin, _ in (qrs_edges(ecg, b) for b in inner_beats(ecg))]
        return np.median(np.corrcoef(cuts)[np.triu_indices(len(cuts), 1)])

    assert np.median([before_qrs(ecg) for ecg in several("SR")]) > 0.95
    assert np.median([before_qrs(ecg) for ecg in several("AFIB")]) < 0.5


def test_first_degree_block_has_a_pr_above_200_ms_and_a_normal_ecg_below():
    assert all(pr_interval(simulated("1AVB", "SR", seed=seed, severity=0.3)) > 200 for seed in SEEDS)
    assert all(110 < pr_interval(simulated("NORM", "SBRAD", seed=seed)) < 200 for seed in SEEDS)


@pytest.mark.parametrize("code", ["CLBBB", "CRBBB"])
def test_complete_bundle_branch_blocks_are_wider_than_120_ms(code):
    assert all(qrs_width(ecg) > 120 for ecg in several(code, "SR"))


def test_normal_qrs_is_narrower_than_110_ms_and_a_shortened_block_in_between():
    assert all(qrs_width(ecg) < 110 for ecg in several("NORM", "SR"))
    assert all(qrs_width(ecg) < 122 for ecg in several("IRBBB", "SR"))


def test_left_bundle_branch_block_is_negative_in_v1_and_positive_in_v6():
    for ecg in several("CLBBB", "SR"):
        (high_v1, low_v1), (high_v6, low_v6) = qrs_extremes(ecg, "V1"), qrs_extremes(ecg, "V6")
        assert -low_v1 > 3 * high_v1
        assert high_v6 > 5 * -low_v6
        assert t_level(ecg, "V6") < 0 < t_level(ecg, "V1")


def test_right_bundle_branch_block_ends_upwards_in_v1_and_downwards_in_v6():
    for ecg in several("CRBBB", "SR"):
        edges = [qrs_edges(ecg, beat) for beat in inner_beats(ecg)]
        last = [slice(begin + 2 * (end - begin) // 3, end) for begin, end in edges]
        assert np.median([lead(ecg, "V1")[part].max() for part in last]) > 0.2
        assert np.median([lead(ecg, "V6")[part].min() for part in last]) < -0.1


@pytest.mark.parametrize(
    ("code", "raised", "lowered"),
    [("IMI", ("II", "III", "AVF"), "AVL"), ("ASMI", ("V1", "V2", "V3"), ""), ("LMI", ("I", "AVL"), "III"),
     ("ALMI", ("V3", "V4", "V5"), ""), ("AMI", ("V2", "V3", "V4"), ""), ("PMI", (), "V2")],
)  # fmt: skip
def test_acute_infarcts_raise_st_over_their_own_wall(code, raised, lowered):
    for seed in SEEDS:
        ecg = simulated(code, "SR", seed=seed, severity=0.15)
        assert all(st_level(ecg, name) > 0.1 for name in raised)
        assert not lowered or st_level(ecg, lowered) < -0.05


def test_an_infarct_grows_old_from_st_through_inverted_t_to_q_alone():
    for seed in SEEDS:
        acute, recent, old = (simulated("IMI", "SR", seed=seed, severity=severity) for severity in (0.15, 0.4, 0.8))
        assert st_level(acute, "III") > st_level(recent, "III") > st_level(old, "III")
        assert t_level(recent, "III") < -0.1
        assert st_level(old, "III") < 0.1
        for ecg in (recent, old):
            begin = [qrs_edges(ecg, beat)[0] for beat in inner_beats(ecg)]
            assert np.median([lead(ecg, "III")[b : b + 25].min() - lead(ecg, "III")[b] for b in begin]) < -0.1


def test_hypertrophy_has_sokolow_lyons_voltage_and_a_lateral_strain():
    for ecg in several("LVH", "SR"):
        assert qrs_extremes(ecg, "V5")[0] - qrs_extremes(ecg, "V1")[1] > 2.8
    voltage = [qrs_extremes(ecg, "V5")[0] - qrs_extremes(ecg, "V1")[1] for ecg in several("LVH", "SR")]
    assert np.median(voltage) > 3.5
    assert all(t_level(simulated("LVH", "SR", seed=seed, severity=0.8), "V6") < 0 for seed in SEEDS)


def test_low_voltage_stays_below_half_a_millivolt_in_the_limb_leads():
    for ecg in several("LVOLT", "SR"):
        for name in ("I", "II", "III"):
            high, low = qrs_extremes(ecg, name)
            assert max(high, -low) < 0.6


def test_ischaemia_lowers_st_and_turns_t_over():
    for ecg in several("ISC_", "SR"):
        assert st_level(ecg, "V5") < -0.05
        assert t_level(ecg, "V5") < 0


def test_the_left_fascicles_turn_the_axis():
    def degrees(ecg):
        net = [sum(qrs_extremes(ecg, name)) for name in ("I", "AVF")]
        return np.degrees(np.arctan2(net[1], net[0]))

    assert all(-95 < degrees(ecg) < -30 for ecg in several("LAFB", "SR"))
    assert all(90 < degrees(ecg) < 180 for ecg in several("LPFB", "SR"))
    assert all(-35 < degrees(ecg) < 100 for ecg in several("NORM", "SR"))


def test_a_ventricular_beat_is_early_wide_and_followed_by_a_full_pause():
    for seed in SEEDS:
        ecg = simulated("PVC", "SR", seed=seed, severity=0.1)
        peaks, intervals = beats(ecg), rr(ecg)
        early = int(intervals.argmin())
        usual = np.median(intervals)
        assert intervals[early] < 0.8 * usual
        assert intervals[early] + intervals[early + 1] == pytest.approx(2 * usual, rel=0.15)
        begin, end = qrs_edges(ecg, int(peaks[early + 1]))
        assert (end - begin) / RATE > 0.12


def test_an_atrial_beat_is_early_and_narrow():
    for seed in SEEDS:
        ecg = simulated("PAC", "SR", seed=seed, severity=0.1)
        intervals = rr(ecg)
        early = int(intervals.argmin())
        assert intervals[early] < 0.85 * np.median(intervals)
        begin, end = qrs_edges(ecg, int(beats(ecg)[early + 1]))
        assert (end - begin) / RATE < 0.12


def test_qt_follows_the_rate_and_is_long_where_the_statement_says_so():
    def corrected(*codes, seed):
        plan = plan_with(codes, seed=seed)
        heart = make_heart(plan)
        slow, fast = (float(heart.qt(np.full(3, interval))[0]) for interval in (1.2, 0.6))
        assert slow > fast
        return slow / np.cbrt(1.2)

    assert all(corrected("LNGQT", "SR", seed=seed) > 0.47 for seed in SEEDS)
    assert all(corrected("NORM", "SR", seed=seed) < 0.45 for seed in SEEDS)


def test_every_simulated_statement_changes_the_ecg():
    for code in SIMULATED:
        plain = simulated("SR") if code not in RHYTHMS else simulated()
        if code not in ("NORM", "SR"):
            assert np.abs(simulated(code, *(() if code in (*RHYTHMS, "3AVB") else ("SR",))) - plain).max() > 0.02, code


def test_einthovens_and_goldbergers_laws_hold_in_whole_units_at_both_rates():
    for number in range(8):
        plan = plan_record(3, number)
        ecg = ecg_of(plan, make_heart(plan))
        for record in (ecg, at_100_hz(ecg)):
            one, two, three, avr, avl, avf = record[:6].astype(int)
            assert np.array_equal(three, two - one)
            assert np.abs(2 * avr + one + two).max() <= 1
            assert np.abs(2 * avl - one + three).max() <= 1
            assert np.abs(2 * avf - two - three).max() <= 1


def test_100_hz_records_hold_the_500_hz_ones_below_40_hz_and_nothing_folded_back():
    time = np.arange(5000) / RATE
    for frequency, kept in ((10, True), (38, True), (60, False), (90, False)):
        wave = np.zeros((12, 5000), np.int16)
        wave[6] = np.rint(1000 * np.sin(2 * np.pi * frequency * time))
        low = at_100_hz(wave)[6, 50:-50].astype(float)
        if kept:
            assert np.abs(low - wave[6, ::5][50:-50]).max() < 15
        else:
            assert np.abs(low).max() < 5


def test_statements_that_decide_the_same_never_stand_together():
    for number in range(300):
        random = np.random.default_rng(number)
        prevalence = ("natural", "uniform")[number % 2]
        chronic = chronic_statements(random, prevalence)
        statements = record_statements(chronic, random, prevalence)
        assert set(chronic) <= set(statements)
        assert len(set(statements)) == len(statements)
        assert all(
            can_stand_together(code, tuple(other for other in statements if other != code)) for code in statements
        )
        assert "PACE" in statements or any(code in DIAGNOSES for code in statements)


def test_natural_prevalences_are_those_of_ptbxl_and_uniform_ones_reach_the_rare():
    natural = [plan_record(1, number, "natural").statements for number in range(1500)]
    share = {code: np.mean([code in statements for statements in natural]) for code in ("NORM", "SR", "AFIB")}
    assert 0.38 < share["NORM"] < 0.5  # PTB-XL: 0.44
    assert 0.7 < share["SR"] < 0.87  # PTB-XL: 0.77
    assert 0.04 < share["AFIB"] < 0.11  # PTB-XL: 0.07
    uniform = [plan_record(1, number, "uniform").statements for number in range(1500)]
    assert min(sum(code in statements for statements in uniform) for code in SIMULATED) >= 8


def test_an_unknown_statement_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"QWAVE are not simulated, known are NORM, CLBBB"):
        plan_with(["QWAVE"])


def test_noise_reaches_the_leads_and_leaves_the_beats():
    clean, noisy = simulated("SR"), simulated("SR", noisy=True)
    assert 0.001 < np.abs(noisy - clean).std() < 0.2
    assert len(beats(clean)) == pytest.approx(len(beats(noisy)), abs=1)
    assert steepness(noisy).mean() > steepness(clean).mean()
