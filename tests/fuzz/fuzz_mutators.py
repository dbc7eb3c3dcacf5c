"""Changes that go past checksums: the inside of a file is mutated, then it is sealed again as its writer would.

Each takes the content, what mutates plain bytes (``plain(content, max_size)``) and a random source. Content that does
not come apart is mutated as it is.
"""

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from fuzz_targets import packed, unpacked

from ecg_lightning.data.record import _plain_header
from ecg_lightning.data.store_format import block_sha256, contents_of, tables_sha256

Plain = Callable[[bytes, int], bytes]
Mutator = Callable[[bytes, Plain, random.Random], bytes]
MOST = 1 << 16
"""Bytes of a mutated part."""


def mutate_store(content: bytes, plain: Plain, chance: random.Random) -> bytes:
    """Bytes anywhere, or an attribute, a data set or a link by its name; then the hashes are made to hold."""
    if chance.random() < 0.4:
        changed = edited_store(content, chance)
    else:
        start = chance.randrange(len(content) + 1)
        part = content[start : start + chance.choice((1, 2, 8, 64, 512))]
        changed = content[:start] + plain(part, len(part) + 8)[: len(part)].ljust(len(part), b"\0")
        changed += content[start + len(part) :]
    return sealed_store(changed) if chance.random() < 0.8 else changed


def edited_store(content: bytes, chance: random.Random) -> bytes:
    """One attribute, data set or link changed by way of HDF5; the content itself where it is no longer HDF5."""
    import h5py

    with NamedTemporaryFile(suffix=".h5") as copy:
        Path(copy.name).write_bytes(content)
        try:
            with h5py.File(copy.name, "r+") as file:
                _edit(file, chance)
        except Exception:
            return content
        return Path(copy.name).read_bytes()


def _edit(file: "h5py.File", chance: random.Random) -> None:  # type: ignore[name-defined]  # noqa: F821
    import h5py

    if chance.random() < 0.4:
        name = chance.choice(sorted(file.attrs))
        old = file.attrs[name]
        if isinstance(old, bytes) and old.startswith(b"{") and chance.random() < 0.7:
            file.attrs[name] = np.bytes_(json.dumps(_edited_json(json.loads(old), chance)).encode())
            return
        odd = (0, -1, 2**40, 2**62, 0.0, float("nan"), 1e300, np.bytes_(b"\xff"), np.bytes_(b"[]"), "x", np.zeros(3))
        file.attrs[name] = chance.choice(odd)
        return
    names: list[str] = []

    def collect(name: str, item: object) -> None:  # what a former edit let fill any size would do so here, when read
        if isinstance(item, h5py.Dataset) and item.nbytes <= MOST:
            names.append(name)

    file.visititems(collect)
    name = chance.choice(sorted(names))
    old = file[name]
    shape, kind = list(old.shape), old.dtype
    values = old[()]
    del file[name]
    way = chance.randrange(8)
    if way == 0:
        return
    if way == 1:
        file[name] = chance.choice((h5py.SoftLink("/signals"), h5py.SoftLink("/none"), h5py.ExternalLink("o.h5", "/x")))
    elif way == 2:
        file.create_dataset(name, data=values, chunks=True, compression=chance.choice((None, "gzip")))
    elif way == 3:  # a value that fills any size, of which nothing is in the file
        huge = tuple(size if place else chance.choice((0, 7, 10**6, 10**9, 10**13)) for place, size in enumerate(shape))
        file.create_dataset(name, shape=huge, dtype=kind, chunks=tuple(max(1, min(size, 64)) for size in huge))
    elif way == 4:
        file.create_dataset(name, data=values[: chance.randrange(len(values) + 1)])
    elif way == 5:
        others = (
            "<i2",
            ">i4",
            "<f8",
            "u1",
            "<i8",
            "S3",
            h5py.string_dtype(),
            "c8",
            np.dtype([("a", "i4")]),
            "<f2",
            "?",
        )
        file.create_dataset(name, shape=shape, dtype=chance.choice(others))
    elif way == 6:
        file.create_dataset(name, data=values.reshape(-1) if chance.random() < 0.5 else np.stack([values, values]))
    else:
        flat = values.copy().reshape(-1).view(np.uint8)
        for _ in range(chance.choice((1, 1, 4, 64))):
            flat[chance.randrange(len(flat))] = chance.choice((0, 1, 127, 128, 254, 255))
        file.create_dataset(name, data=flat.view(values.dtype).reshape(values.shape))


def _edited_json(value: object, chance: random.Random) -> object:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        rest = {name: one for name, one in value.items() if name != key}
        return rest if chance.random() < 0.1 else {**rest, key: _edited_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.6:
        place = chance.randrange(len(value))
        return [*value[:place], _edited_json(value[place], chance), *value[place + 1 :]]
    steps = [{"step": "notch"}, {"step": "resample", "rate": 0}, {"step": "bandpass", "low": 1e300, "high": -1}]
    return chance.choice([None, -1, 0, 10**18, 1e308, float("nan"), "", "I", [], {}, [1], True, steps])


def sealed_store(content: bytes) -> bytes:
    """``content`` with the hashes of its blocks and the one over all that it asks for, read as the package reads it."""
    import h5py

    with NamedTemporaryFile(suffix=".h5") as copy:
        path = Path(copy.name)
        path.write_bytes(content)
        try:
            with h5py.File(path, "r") as file:
                contents = contents_of(file)
                place = file["index/sha256"].id.get_offset()
            hashes = b"".join(block_sha256(path, contents, *bounds) for bounds in contents.blocks)
            content = content[:place] + hashes + content[place + len(hashes) :]
            path.write_bytes(content)
            with h5py.File(path, "r") as file:
                contents = contents_of(file)
            told = str(contents.attributes["sha256"]).encode()
            return content.replace(told, tables_sha256(contents).encode()) if len(told) == 64 else content
        except Exception:
            return content


def mutate_source(content: bytes, plain: Plain, chance: random.Random) -> bytes:
    """One of the packed files; a record is then given the length and the checksums that its header tells."""
    files = unpacked(content)
    name = chance.choice(sorted(files))
    files[name] = _text_mutated(files[name], plain, chance)
    if name.endswith(".hea") and chance.random() < 0.7:
        files = sealed_record(files, name)
    return packed(files)


_ODD = (
    b"0", b"-1", b"", b"1e400", b"nan", b"2147483648", b"9" * 30, b"9" * 5000, b"\xff", b"\xef\xbb\xbf", b'"', b"'",
    b"{", b"(" * 300, b"/", b"..", b".", b"~", b"\r", b"#", b"16x2", b"16:9", b"16+24", b"212", b"516", b"1000(0)/mV",
    b"\xb2", "٣".encode(), b"_", b"1_0", b"1e300",
)  # fmt: skip
_WORD = re.compile(rb"[^\s,]+")


def _text_mutated(text: bytes, plain: Plain, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return plain(text, min(MOST, len(text) + 64))
    words = list(_WORD.finditer(text))
    if not words:
        return chance.choice(_ODD)
    for word in sorted(chance.sample(words, min(len(words), chance.choice((1, 1, 2)))), key=lambda one: -one.start()):
        other = chance.choice((chance.choice(_ODD), chance.choice(words)[0], word[0] * 2, word[0][:-1]))
        text = text[: word.start()] + other + text[word.end() :]
    return text


def sealed_record(files: dict[str, bytes], header: str) -> dict[str, bytes]:
    """The files with signals as long as the plain ``header`` says, and its checksums those of the signals."""
    try:
        told = _plain_header(files[header].decode("utf-8", "replace"))
    except ValueError:
        return files
    if told is None or told.file not in files:
        return files
    size = told.offset + told.num_time_points * len(told.leads) * 2
    if size > MOST or not told.leads:
        return files
    signals = files[told.file][:size].ljust(size, b"\1")
    sums = np.frombuffer(signals[told.offset :], "<i2").reshape(-1, len(told.leads)).sum(axis=0, dtype=np.int64)
    lines, lead = files[header].split(b"\n"), 0
    for place, line in enumerate(lines):
        fields = line.split(b" ")
        if line.strip() and not line.startswith(b"#") and len(fields) >= 9:
            fields[6] = str((int(sums[lead]) + 32768) % 65536 - 32768).encode()
            lines[place], lead = b" ".join(fields), min(lead + 1, len(sums) - 1)
    return {**files, header: b"\n".join(lines), told.file: signals}


def mutate_archive(content: bytes, plain: Plain, chance: random.Random) -> bytes:
    """One member of a zip archive, with the right checksum, or the plain bytes of anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {one.filename: archive.read(one) for one in archive.infolist()[:200]}
    except Exception:
        return plain(content, MOST)
    if not members or chance.random() < 0.1:
        return plain(content, MOST)
    way, name = chance.random(), chance.choice(sorted(members, key=lambda one: ("data.pkl" not in one, one))[:12])
    if "data.pkl" in "".join(members) and chance.random() < 0.6:
        name = next(one for one in members if "data.pkl" in one)
    if way < 0.05:
        del members[name]
    elif way < 0.1:
        members[plain(name.encode(), 40).decode("latin-1") or "x"] = members.pop(name)
    elif way < 0.15:
        members[name] = members[chance.choice(sorted(members))]
    elif members[name].startswith(b"\x93NUMPY"):
        members[name] = _mutated_array(members[name], plain, chance)
    else:
        members[name] = plain(members[name], MOST)
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as new:
        for one, inside in members.items():
            new.writestr(zipfile.ZipInfo(one), inside)
    return file.getvalue()


_KINDS = ("<i8", "|O", "<U3", "|S4", "<f2", ">f4", "<f16", "<c8", "|V8", "<M8[s]", "|b1", "[('a','<i4')]", "<U0")
_SIZES = (
    "(4,)",
    "(4, 5)",
    "()",
    "(0,)",
    "(-1,)",
    "(10000000000,)",
    "(4, 5, 1)",
    "(9223372036854775807, 2)",
    "4",
    "(1e3,)",
)


def _mutated_array(array: bytes, plain: Plain, chance: random.Random) -> bytes:
    """Header or values of an npy; a changed header is padded and its length told anew."""
    length = int.from_bytes(array[8:10], "little")
    header, values = array[10 : 10 + length], array[10 + length :]
    way = chance.randrange(4)
    if way == 0:
        return array[: 10 + length] + plain(values, min(MOST, len(values) + 64))
    if way == 1:
        header = plain(header.rstrip(), 512)
    else:
        rule, others = ((rb"'descr': '[^']*'", _KINDS), (rb"'shape': \([^)]*\)", _SIZES))[way - 2]
        key, other = ("descr", chance.choice(others)) if way == 2 else ("shape", chance.choice(others))
        told = other if key == "shape" or other.startswith("[") else f"'{other}'"
        header = re.sub(rule, f"'{key}': {told}".encode(), header).rstrip()
    header = header.ljust(length - 1) + b"\n"
    return array[:8] + len(header).to_bytes(2, "little") + header + values


def mutate_weights(content: bytes, plain: Plain, chance: random.Random) -> bytes:
    """The JSON at the head of a safetensors file with its length told anew, or as `mutate_archive`."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] != b"{" or length > len(content) or chance.random() < 0.1:
        return mutate_archive(content, plain, chance)
    header, values = content[8 : 8 + length], content[8 + length :]
    if chance.random() < 0.5:
        header = plain(header, MOST)
    else:
        try:
            table = json.loads(header)
            name = chance.choice(sorted(table))
            table[name] = _edited_json(table[name], chance)
            header = json.dumps(table).encode()
        except (ValueError, IndexError, TypeError, RecursionError):
            header = plain(header, MOST)
    if chance.random() < 0.1:
        values = plain(values, len(values) + 8)
    return len(header).to_bytes(8, "little") + header + values


MUTATORS: dict[str, Mutator] = {
    "store": mutate_store,
    "source": mutate_source,
    "weights": mutate_weights,
    "predictions": mutate_archive,
}
