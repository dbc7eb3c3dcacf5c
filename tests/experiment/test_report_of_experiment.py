import pytest
from page_reader import read_page
from small_grid import called, write_grid
from tiny import of_lightning_cli

from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.signals import SignalSpec

pytestmark = of_lightning_cli


@pytest.mark.slow
def test_a_real_experiment_has_a_report(capsys, tmp_path, make_ptbxl):
    prepare(make_ptbxl(num_records=80), tmp_path / "store.h5", SignalSpec(100, 1000), workers=1, progress=False)
    folds = ("--data.train_folds=[1,2,3,4,5,6,7]", "--data.val_folds=[8]", "--data.test_folds=[9]")
    flags = ("--data.store", tmp_path / "store.h5", *folds, "--axes.seed.values", "[1,2]")
    assert called(capsys, write_grid(tmp_path), "--output", tmp_path / "runs", *flags)[0] == 0
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), "--draws", "100"]) == 0
    found = read_page((tmp_path / "out" / "report.html").read_text())
    assert "4, 4 of them complete" in found.text
    assert [row[1] for row in found.tables[1][1:]] == ["method", "plain"]
    assert "as the store has it (12 leads, 10 s at 100 Hz)" in found.text
