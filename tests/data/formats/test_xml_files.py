import builtins
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_formats import aecg_text, dicom_dataset, made_up, muse_text, write_dicom

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.data.formats.xml_files import MAX_BYTES
from ecg_lightning.errors import InputError

WHOLE = made_up(("I", "II"), seconds=0.1)
BILLION_LAUGHS = """<?xml version="1.0"?><!DOCTYPE RestingECG [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><RestingECG>&c;</RestingECG>"""
EXTERNAL = """<?xml version="1.0"?><!DOCTYPE RestingECG [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<RestingECG>&a;</RestingECG>"""
PARAMETER = (
    """<?xml version="1.0"?><!DOCTYPE RestingECG [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]><RestingECG/>"""
)


def read(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_recording(path, Layout())


@pytest.mark.parametrize("text", [BILLION_LAUGHS, EXTERNAL, PARAMETER])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_whatever_they_would_do(tmp_path, text, encoding):
    with pytest.raises(
        InputError, match=r"a\.xml declares entities \(.*\), which may blow up .*: export the ECG as HL7"
    ):
        read(tmp_path, text.encode(encoding))


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        ("<restingecgdata xmlns='http://www3.medical.philips.com'/>", "Philips Sierra XML"),
        ("<CardiologyXML/>", "GE CardioSoft XML"),
        ("<ClinicalDocument xmlns='urn:hl7-org:v3'/>", "an HL7 CDA document"),
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", "XML with the root 'svg'"),
    ],
)
def test_another_schema_is_told_with_what_to_do(tmp_path, root, kind):
    with pytest.raises(
        InputError, match=f"is {kind}, which is not read: export the ECG as HL7 aECG, GE MUSE XML or DICOM"
    ):
        read(tmp_path, root)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no XML",
        "<AnnotatedECG>",
        b"\xff\xfe\x00",
        b"<?xml version='1.0' encoding='gb2312'?><AnnotatedECG/>",
        b"\x00",
    ],
)
def test_what_is_no_xml_is_told(tmp_path, content):
    with pytest.raises(InputError, match=r"a\.xml is no XML that can be read \(.*\): fetch or export it again"):
        read(tmp_path, content)


def test_a_document_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"a\.xml holds 128 MiB, at most 128 MiB are read: cut it"):
        read_recording(tmp_path / "a.xml", Layout())


@pytest.mark.parametrize(("name", "library"), [("a.xml", "defusedxml"), ("a.dcm", "pydicom")])
def test_without_the_extra_the_command_that_installs_it_is_told(tmp_path, monkeypatch, name, library):
    (tmp_path / "a.xml").write_text(muse_text(WHOLE))
    write_dicom(tmp_path / "a.dcm", dicom_dataset(WHOLE))
    real = builtins.__import__

    def without(module, *rest):
        if module.split(".")[0] == library:
            raise ImportError(module)
        return real(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        InputError, match=rf"{name} cannot be read without {library}: pip install 'ecg-lightning\[formats\]'"
    ):
        read_recording(tmp_path / name, Layout())


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_gives_our_own_error_or_an_ecg(tmp_path_factory, data):
    text = data.draw(st.sampled_from([aecg_text(WHOLE), muse_text(WHOLE)]))
    start = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 40))
    put = data.draw(
        st.one_of(st.just(""), st.sampled_from(["nan", "-1", "1e400", "<a/>", "&", "0", ",", "inf"]), st.text())
    )
    with contextlib.suppress(InputError):
        recording = read(tmp_path_factory.mktemp("xml"), text[:start] + put + text[start + cut :])
        assert recording.ecg.shape[0] == len(recording.leads) > 0
