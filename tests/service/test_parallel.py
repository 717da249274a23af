"""`itb convert --jobs`: several processes give what one gives, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mappings.exact_json import dumps, loads
from service import cli, conversion, parallel
from service.synthetic import clinic

STORYLINES = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "storyline").glob("*.ndjson"))
MOVED = loads(STORYLINES[0].read_bytes().splitlines()[0])


def stream() -> list[bytes]:
    """Several pumps' histories, woven into one another, with lines that nothing can be made of."""
    histories = [path.read_bytes().splitlines() for path in STORYLINES]
    histories.append([dumps(event) for event in clinic(12, 1, 3)])
    woven = [
        line for at in range(max(map(len, histories))) for line in (h[at] for h in histories if at < len(h))
    ]
    other_pump = {**MOVED, "id": "later", "reservoir_capacity": {"value": 1, "unit": "mL"}, "version": 2}
    odd = [b"{", b'{"type": "refill", "pump": 7}', b"", b'"\xff"', b'{"type":"device"}', dumps(other_pump)]
    for number, line in enumerate(odd):
        woven.insert(20 * (number + 1), line)
    return woven


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "BATCH", 16)


def test_three_processes_convert_as_one_does() -> None:
    sent = stream()
    alone = list(conversion.to_fhir(sent))
    assert any(one.errors for one in alone) and len(alone) > 10 * parallel.BATCH
    assert list(parallel.to_fhir(sent, 3)) == alone
    bundles = [line for one in alone for line in one.out] + [b"[]", b'{"resourceType":"Patient"}']
    back = list(conversion.from_fhir(bundles, "fhir"))
    assert list(parallel.from_fhir(bundles, "fhir", 3)) == back


def test_a_pump_sent_to_two_processes_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(batch: Any, jobs: int, after: int = 0) -> Any:
        return parallel._shares_in_turn(batch, jobs)

    monkeypatch.setattr(parallel, "_shares_by_pump", in_turn)
    sent = stream()
    assert list(parallel.to_fhir(sent, 3)) != list(conversion.to_fhir(sent))


def test_the_command_takes_the_number_of_processes(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(stream()))
    alone = CliRunner().invoke(cli.main, ["convert", "to-fhir", str(file)])
    two = CliRunner().invoke(cli.main, ["convert", "to-fhir", "--jobs", "2", str(file)])
    assert (two.exit_code, two.stdout_bytes, two.stderr) == (1, alone.stdout_bytes, alone.stderr)
