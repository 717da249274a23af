"""What a log may say: ids, counts, classes and places; never what an exception says or holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.telemetry import make_log
from site_of_tests import DEVICE, PATIENT, Site


def test_an_exception_is_logged_without_its_message_and_variables(capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log()
    patient = "MRN4711"
    try:
        raise ValueError(f"no bed for {patient}")
    except ValueError as caught:
        log.exception("failed")
        log.error("failed", exc_info=caught)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["error"] for line in lines] == ["ValueError", "ValueError"]
    assert all("test_telemetry.py" in line["at"][-1] for line in lines)
    assert "4711" not in json.dumps(lines)


def test_a_failure_in_a_worker_names_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by the chaos run: the worker's log was a traceback with every variable on the way."""
    site = Site(tmp_path)
    site.register()
    site.ehr.before = [lambda name: (_ for _ in ()).throw(ZeroDivisionError(PATIENT["value"]))]
    site.send(DEVICE)
    assert site.push() == {"parked": 1}
    said = capsys.readouterr()
    assert "ZeroDivisionError" in said.err
    assert PATIENT["value"] not in said.err + said.out
    site.store.close()
