"""XML files: parsed without entities or anything fetched, and handed to the reader of their schema by their root."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_lightning.data.formats.aecg import read_aecg
from ecg_lightning.data.formats.extras import needs_extra
from ecg_lightning.data.formats.muse import read_muse
from ecg_lightning.data.formats.recording import Recording, read_bytes
from ecg_lightning.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 2**27
"""An hour of 12 leads takes a quarter of it as text; the tree of a document takes ten times its size."""

SCHEMAS: Mapping[str, Callable[[Path, "Element"], Recording]] = {"AnnotatedECG": read_aecg, "RestingECG": read_muse}
"""Readers by the name of the root: HL7 aECG and GE MUSE."""

_EXPORT = "export the ECG as HL7 aECG, GE MUSE XML or DICOM, or convert it to WFDB, CSV or NPY"
_OTHERS = {
    "restingecgdata": "Philips Sierra XML",
    "CardiologyXML": "GE CardioSoft XML",
    "ECG": "Mortara XML",
    "examdescript": "Schiller SEMA XML",
    "ClinicalDocument": "an HL7 CDA document",
    "Bundle": "an HL7 FHIR bundle",
    "Observation": "an HL7 FHIR observation",
}
"""Roots of documents that carry ECGs and are not read."""


def read_xml(path: Path) -> Recording:
    """Reads an XML file of one of the `SCHEMAS`.

    Raises:
        InputError: for files that are no XML, hold entities (they could blow up, or name other files), follow another
            schema, and for all that the schema's reader refuses.
    """
    root = _parse(path, read_bytes(path, at_most=MAX_BYTES))
    name = root.tag.rpartition("}")[2]
    if name not in SCHEMAS:
        kind = _OTHERS.get(name, f"XML with the root {name[:60]!r}")
        raise InputError(f"{path} is {kind}, which is not read: {_EXPORT}")
    for element in root.iter():  # the readers speak the schemas' names, without their namespaces
        element.tag = element.tag.rpartition("}")[2]
    return SCHEMAS[name](path, root)


def _parse(path: Path, content: bytes) -> "Element":
    with needs_extra(path, "defusedxml"):
        from defusedxml import DefusedXmlException, ElementTree
    try:
        root: Element = ElementTree.fromstring(content)
    except DefusedXmlException as error:
        raise InputError(
            f"{path} declares entities ({type(error).__name__}), which may blow up or name other files: {_EXPORT}"
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is no XML that can be read ({error}): fetch or export it again") from error
    return root
