import numpy as np

from ecg_lightning.data.formats import Layout, conform, find_recordings, read_recording, warnings_of
from ecg_lightning.data.record import read_record
from ecg_lightning.signals import LEADS_12


def test_real_records_come_the_same_from_wfdb_csv_and_npy(shared, tmp_path):
    for hea in [*find_recordings([shared / "cinc2021"]), *find_recordings([shared / "ptbxl"])[:20]]:
        recording = read_recording(hea, Layout())
        rate = recording.sampling_rate
        np.testing.assert_allclose(
            recording.ecg, read_record(hea.with_suffix(""), recording.leads, rate) / 1000, atol=1e-12
        )
        np.savetxt(tmp_path / "a.csv", recording.ecg.T, "%.3f", ",", header=",".join(recording.leads), comments="")
        np.save(tmp_path / "a.npy", recording.ecg)
        csv = read_recording(tmp_path / "a.csv", Layout(rate))
        npy = read_recording(tmp_path / "a.npy", Layout(rate, recording.leads))
        assert csv.leads == npy.leads == recording.leads
        np.testing.assert_allclose(csv.ecg, recording.ecg, atol=1e-9)
        np.testing.assert_array_equal(npy.ecg, recording.ecg)
        assert [doubt for doubt in warnings_of(recording) if "flat" not in doubt] == []
        ecg, _ = conform(csv, LEADS_12, 100, 1000)
        assert ecg.shape == (12, 1000)
