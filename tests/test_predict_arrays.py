"""A trained run asked from Python, by arrays."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from asked_to_predict import millivolts, predict, record_of
from made_up_ptbxl import LEADS
from tiny import of_lightning_cli

import ecg_lightning
from ecg_lightning.errors import InputError, UsageError

pytestmark = of_lightning_cli


@pytest.mark.filterwarnings("ignore:[\\s\\S]*Einthoven")  # the made-up leads know no law
def test_arrays_get_the_probabilities_of_the_command(ptbxl, filtered_run, tmp_path):
    table = predict(filtered_run, tmp_path / "p.csv", "--records", *(record_of(ptbxl, number) for number in (1, 2, 3)))
    run = ecg_lightning.load_run(filtered_run)
    ecgs = np.stack([millivolts(ptbxl, number) for number in (1, 2, 3)])
    several = run.predict(ecgs, sampling_rate=100, leads=LEADS)
    one = run.predict(1000 * ecgs[1, ::-1], sampling_rate=100, leads=",".join(LEADS[::-1]), unit="uV")
    assert [*several] == [*one] == [*table.columns[:5]]
    expected = table.iloc[:, :5].to_numpy()
    np.testing.assert_allclose(np.column_stack([*several.values()]), expected, atol=1e-6)
    np.testing.assert_allclose([*one.values()], expected[1], atol=1e-6)


@pytest.mark.filterwarnings("ignore:[\\s\\S]*Einthoven")
def test_an_array_in_microvolts_is_what_it_is_in_millivolts(ptbxl, plain_run):
    run = ecg_lightning.load_run(plain_run)
    ecg = millivolts(ptbxl)
    one, other = (
        [*run.predict(scale * ecg, sampling_rate=100, leads=LEADS, unit=unit).values()]
        for scale, unit in ((1, "mV"), (1000, "uV"))
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_doubtful_array_is_warned_of(ptbxl, plain_run):
    run = ecg_lightning.load_run(plain_run)
    with pytest.warns(UserWarning, match="the array: .*it looks like uV"):
        run.predict(1000 * millivolts(ptbxl), sampling_rate=100, leads=LEADS)


@pytest.mark.parametrize(
    ("shape", "leads", "error", "message"),
    [
        ((1000, 12), LEADS, InputError, r"shape \(1000, 12\), it must be \(lead, time\).*transpose"),
        ((12,), LEADS, InputError, r"shape \(12,\)"),
        ((11, 1000), LEADS[:11], InputError, r"the array: leads missing: V6"),
        ((2, 12, 300), LEADS, InputError, r"record 0 of the array: it lasts 3 s"),
        ((12, 1000), [*LEADS[:11], "I"], UsageError, r"name each lead once"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_rule(plain_run, shape, leads, error, message):
    random = np.random.default_rng(0)
    with pytest.raises(error, match=message):
        ecg_lightning.load_run(plain_run).predict(random.normal(size=shape), sampling_rate=100, leads=leads)


def test_loading_a_run_leaves_the_callers_random_draws_alone(plain_run):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    ecg_lightning.load_run(plain_run)
    assert torch.equal(torch.rand(3), expected)


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "numpy", "scipy", "lightning", "jsonargparse", "h5py", "yaml")
    code = f"import sys, ecg_lightning; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "load_run" in dir(ecg_lightning)
    with pytest.raises(AttributeError, match="no attribute 'load_ruin'"):
        ecg_lightning.load_ruin  # noqa: B018
