"""Coverage-guided fuzzing of what reads HL7 v2 from strangers: `python -m fuzz_hl7 -max_total_time=60`.

atheris changes bytes of good messages so that they reach code that no input reached before. Nothing may be
raised but `MappingError`; what is read is rebuilt byte for byte; a stream is cut alike in any pieces.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mappings.hl7v2", "service.mllp"]):
    from mappings.hl7v2 import ack, dump, head, parse, read, sender_map
    from mappings.hl7v2.framing import messages
    from mappings.hl7v2.message import Sizes
    from mappings.rows import MappingError
    from service.mllp.framing import Frames, framed

ROOT = Path(__file__).resolve().parents[1]
SENDER = sender_map({"zone": "America/Chicago", "whole_minutes": True, "source": "x"})
SMALL = Sizes(bytes=4000)


def message(data: bytes) -> None:
    """Read or refused; rebuilt to the same bytes; answered either way."""
    try:
        found = parse(data)
    except MappingError as error:
        ack(head(data), "AR", error.issues, control_id="A", made_at="20260101000000+0000")
        return
    assert dump(found) == data
    reading = read(found, SENDER)
    assert reading.events or reading.updates or reading.errors
    ack(found, "AE", reading.errors, control_id="A", made_at="20260101000000+0000")


def stream(data: bytes) -> None:
    """Cut the same way, whole or in pieces; what is framed is found again."""
    half = len(data) // 2
    pieces = [data[:half], data[half:]]
    assert [str(p) for _, p in messages([data], sizes=SMALL)] == [
        str(p) for _, p in messages(pieces, sizes=SMALL)
    ]
    whole, parts = Frames(4000), Frames(4000)
    assert whole.feed(data) == [frame for piece in pieces for frame in parts.feed(piece)]
    if b"\x0b" not in data and b"\x1c" not in data:
        assert [frame.content for frame in Frames(10_000).feed(framed(data))] == [data]


def one(data: bytes) -> None:
    message(data)
    stream(data)


def main() -> None:
    """Ends the process. What was found is in build/fuzz, as is the corpus that grows from run to run."""
    corpus = ROOT / "build" / "fuzz" / "hl7"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted((ROOT / "fixtures").rglob("*.hl7"))):
        (corpus / f"fixture-{number}").write_bytes(path.read_bytes())
        (corpus / f"fixture-{number}-framed").write_bytes(framed(path.read_bytes()))
    options = ["-max_len=6000", "-print_final_stats=1", f"-artifact_prefix={corpus.parent}/found-"]
    atheris.Setup([*sys.argv, *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
