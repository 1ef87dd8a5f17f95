"""A hundred megabytes of text in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_MOST_MB = 400
_READ_AND_CHUNK = """
import json, resource, sys
from coa.chunking import iter_chunks
from coa.documents.isolation import end_workers, read_document_isolated
from coa.tokens import EstimatedTokens

document = read_document_isolated(sys.argv[1], max_bytes=200_000_000)
size = at = n_chunks = 0
for chunk in iter_chunks(document, budget=8000, counter=EstimatedTokens()):
    assert chunk.span.start == at and chunk.n_tokens <= 8000
    at = chunk.span.end
    n_chunks += 1
assert at == len(document.text)
end_workers()
# Not its own ru_maxrss: that begins with the memory of what started it, a test runner of several hundred MiB.
status = open("/proc/self/status").read()
own = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
peaks = [own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
print(json.dumps({"peaks_mb": peaks, "chunks": n_chunks, "chapters": len(document.chapters())}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_a_hundred_megabytes_are_read_and_chunked_within_400_megabytes(tmp_path: Path) -> None:
    # The typographic mark makes Python keep two bytes a character: the dearer case.
    sentence = "It rained on the harbour, and nobody’s boat came in that day. "
    paragraph = "\n".join([sentence * 2] * 4) + "\n\n"
    chapter = paragraph * 1500
    path = tmp_path / "long.txt"
    with path.open("w", encoding="utf-8") as file:
        n = 0
        while file.tell() < 100_000_000:
            n += 1
            file.write(f"CHAPTER {n}\n\n{chapter}")
    run = subprocess.run(
        [sys.executable, "-c", _READ_AND_CHUNK, str(path)], capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["chapters"] == n
    assert told["chunks"] > 1000
    assert max(told["peaks_mb"]) < _MOST_MB, told
