"""Makes the demo's excerpt from a PTB-XL-shaped folder: ``python -m ecg_lightning.demo.make_excerpt SOURCE OUTPUT``.

The same files give the same bytes (with one version of liblzma): names sorted, no owners, no times, one mode.
"""

import lzma
import sys
import tarfile
from pathlib import Path

MAX_BYTES = 6_000_000
_FIRST = ("LICENSE.txt", "README.md", "ptbxl_database.csv", "scp_statements.csv")


def make_excerpt(source: Path, output: Path) -> int:
    """Packs licence, tables and 100 Hz records of ``source`` into ``output`` (.tar.xz); returns its size in bytes."""
    paths = [source / name for name in _FIRST]
    paths += sorted(path for path in (source / "records100").rglob("*") if path.suffix in (".hea", ".dat"))
    with (
        lzma.open(output, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in paths:
            member = tarfile.TarInfo(path.relative_to(source).as_posix())
            member.size, member.mode, member.mtime = path.stat().st_size, 0o644, 0
            with path.open("rb") as file:
                tar.addfile(member, file)
    return output.stat().st_size


if __name__ == "__main__":
    size = make_excerpt(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{sys.argv[2]}: {size} bytes")
    sys.exit(size > MAX_BYTES)
