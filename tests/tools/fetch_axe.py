"""Fetches axe-core, which looks for what keeps people from using a page, into build/axe: tests/report uses it there.

    python tests/tools/fetch_axe.py

It comes through npm, from whatever registry npm is set to, and is never committed (its licence is MPL-2.0).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "4.10.3"
TARGET = Path(__file__).resolve().parents[2] / "build" / "axe" / "axe.min.js"


def main() -> int:
    """Writes the file and prints where it is, with its digest."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", f"axe-core@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", folder],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=300,
        )
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            member = files.extractfile("package/axe.min.js")
            assert member is not None
            data = member.read()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(data)
    print(f"{TARGET} ({len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
