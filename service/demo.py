"""`make demo`: a child's pump history goes into a real EHR server, and a change made there comes back.

Everything goes the way a clinic's system and an EHR's user would go: over HTTP, with a key.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import requests
from rich.console import Console
from rich.table import Table

from mappings.codes import sid
from mappings.exact_json import dumps, loads

from .hapi_server import HapiServer, start_hapi
from .server import free_port

Json = Any
STORYLINE = Path(__file__).resolve().parent.parent / "fixtures" / "storyline" / "girl-9y.ndjson"
FHIR = {"Content-Type": "application/fhir+json", "Cache-Control": "no-cache"}
WAIT_S = 90


class DemoFailed(Exception):
    """A step did not do what it should; the message says which."""


class Service:
    """`itb serve` in a process of its own, with a fresh ledger, a key, and HAPI as its endpoint."""

    def __init__(self, folder: Path, ehr_url: str) -> None:
        self.url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
        self.env = os.environ | {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db"}
        self.key = self._itb("keys", "add", "demo").strip()
        self._itb("endpoints", "add", "hapi", ehr_url, "--poll-seconds", "1")
        port = self.url.rpartition(":")[2]
        self.log = folder / "service.log"
        with self.log.open("wb") as log:
            command = [*ITB, "serve", "--port", port]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        wait_for("the service is ready", lambda: answers(f"{self.url}/readyz"))

    def _itb(self, *arguments: str) -> str:
        done = subprocess.run([*ITB, *arguments], env=self.env, check=True, capture_output=True, text=True)
        return done.stdout

    def call(self, method: str, path: str, body: Json = None) -> Json:
        """The JSON answer of the service; DemoFailed when it refuses."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = dumps(body) if body is not None else None
        answer = requests.request(method, self.url + path, data=data, headers=headers, timeout=30)
        if answer.status_code >= 400:
            raise DemoFailed(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return loads(answer.content)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


ITB = [sys.executable, "-m", "service.cli"]


def answers(url: str) -> bool:
    """Whether `url` answers 200 now."""
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def wait_for(what: str, true: Callable[[], Any]) -> Any:
    """What `true` returns as soon as it is not false; DemoFailed after a while."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.2)
    raise DemoFailed(f"gave up waiting: {what}")


# --- the EHR's side -------------------------------------------------------------------------------------


def ehr(server: HapiServer, method: str, path: str, body: Json = None, **headers: str) -> Json:
    """The EHR's JSON answer."""
    data = dumps(body) if body is not None else None
    url = f"{server.base_url}/{path}"
    answer = requests.request(method, url, data=data, headers=FHIR | headers, timeout=60)
    if answer.status_code >= 400:
        raise DemoFailed(f"EHR: {method} {path} answered {answer.status_code}: {answer.text[:500]}")
    return loads(answer.content)


def register_patient(server: HapiServer, patient: Json) -> str:
    """The EHR owns its patients: register the child there, as admission would."""
    body = {"resourceType": "Patient", "identifier": [patient], "name": [{"text": "Demo child"}]}
    made = ehr(server, "POST", "Patient", body)
    return f"{server.base_url}/Patient/{made['id']}"


def find_refill(server: HapiServer, value: str) -> Json:
    """The refill of that business identifier, as the EHR holds it."""
    found = ehr(server, "GET", f"MedicationAdministration?identifier={sid('refill')}|{value}")
    return found["entry"][0]["resource"]


def change_lot(server: HapiServer, value: str, lot: str) -> Json:
    """A pharmacist corrects the lot number in the EHR."""
    refill = find_refill(server, value)
    refill["contained"][0]["batch"]["lotNumber"] = lot
    version = f'W/"{refill["meta"]["versionId"]}"'
    return ehr(server, "PUT", f"MedicationAdministration/{refill['id']}", refill, **{"If-Match": version})


# --- the tale -------------------------------------------------------------------------------------------


def play(service: Service, events: list[Json], out: Console) -> None:
    """Send every event, wait until the EHR has them, and print what was done."""
    table = Table(title="What the clinic sent", title_justify="left")
    for column in ("when", "event", "what", "outcome"):
        table.add_column(column)
    for event in events:
        answer = service.call("POST", "/api/v1/events", event)
        table.add_row(event["occurred_at"], f"{event['type']} {event['id']}", words(event), answer["outcome"])
    out.print(table)
    wait_for(
        "every delivery is sent",
        lambda: not service.call("GET", "/api/v1/deliveries?status=pending")["deliveries"],
    )
    for status in ("failed", "parked"):
        held = service.call("GET", f"/api/v1/deliveries?status={status}")["deliveries"]
        if held:
            raise DemoFailed(f"{len(held)} deliveries {status}: {held[0]}")


def words(event: Json) -> str:
    """An event in a few words."""
    if event["type"] == "device":
        return f"{event['kind']} {event.get('manufacturer', '')} {event.get('model', '')}"
    if event["type"] == "refill":
        strength = event["drug"]["concentration"]["value"]
        return f"{event['volume_instilled']['value']} mL of {strength} mcg/mL, lot {event['drug']['lot']}"
    after = event["after"]
    return (
        f"{after['mode']} {after['daily_dose']['value']} mcg/day of {after['concentration']['value']} mcg/mL"
    )


HELD = (
    ("Device", "pump and catheter"),
    ("DeviceUseStatement", "how long they are implanted"),
    ("MedicationAdministration", "refills, infusion segments, bridge"),
    ("MedicationRequest", "programs, chained"),
    ("Procedure", "programming sessions"),
    ("Provenance", "where each record came from"),
)


def show_ehr(server: HapiServer, out: Console) -> None:
    """What the EHR holds now."""
    table = Table(title="What HAPI holds", title_justify="left")
    for column in ("type", "", "count", "URL"):
        table.add_column(column, overflow="fold")
    for type, meaning in HELD:
        found = ehr(server, "GET", f"{type}?_summary=count&_total=accurate")
        table.add_row(type, meaning, str(found["total"]), f"{server.base_url}/{type}")
    out.print(table)
    running = ehr(server, "GET", "MedicationAdministration?status=in-progress")["entry"]
    if len(running) != 1:
        raise DemoFailed(f"{len(running)} segments run at once in the EHR")
    out.print(f"Running now: {running[0]['resource']['dosage']['text']}")


def show_pump(service: Service, serial: str, out: Console) -> None:
    """The pump as the ledger works it out."""
    state = service.call("GET", f"/api/v1/pumps/{serial}?at=2025-09-22T10:00:00-05:00")
    out.print(f"Pump {serial} as of 2025-09-22 (informational, not for dosing decisions):")
    for name in ("reservoir_volume", "alarm_at", "empty_at", "refill_by", "refill_by_decided_by"):
        value = state.get(name)
        shown = f"{value['value']} {value['unit']}" if isinstance(value, dict) else value
        out.print(f"  {name}: {shown}")
    for issue in state.get("open_issues", []):
        out.print(f"  open: {issue['rule']} {issue['message']}")


def come_back(service: Service, server: HapiServer, events: list[Json], out: Console) -> None:
    """A change made in the EHR arrives as a new version of the event, once."""
    refill = next(e for e in events if e["type"] == "refill")
    value = f"{refill['source']}.{refill['id']}"
    old = refill["drug"]["lot"]
    change_lot(server, value, "LOT-CORRECTED")
    path = f"/api/v1/events/{refill['source']}/{refill['id']}"

    def arrived() -> Json:
        record = service.call("GET", path)
        return record if len(record["versions"]) > 1 else None

    record = wait_for("the EHR's change came back", arrived)
    time.sleep(3)  # three more polls: it must not come again
    record = service.call("GET", path)
    newest = record["versions"][-1]
    event = newest.get("event", newest)
    if len(record["versions"]) != 2 or event["drug"]["lot"] != "LOT-CORRECTED":
        raise DemoFailed(f"expected one new version with the new lot, found {record}")
    out.print(f"\nIn the EHR the lot of refill {refill['id']} was changed: {old} -> LOT-CORRECTED.")
    out.print(f"It came back as version {event['version']} of {refill['source']}/{refill['id']}: ", end="")
    out.print(f"lot {event['drug']['lot']}, everything else as it was.")
    again = find_refill(server, value)
    if again["meta"]["versionId"] != "2":
        raise DemoFailed(
            f"the EHR's refill is at version {again['meta']['versionId']}: our own echo went back"
        )


def tell(service: Service, server: HapiServer, out: Console) -> None:
    """The whole demonstration."""
    events = [loads(line) for line in STORYLINE.read_bytes().splitlines() if line.strip()]
    where = register_patient(server, events[0]["patient"])
    out.print(f"Patient registered in the EHR: {where}\n")
    play(service, events, out)
    show_ehr(server, out)
    serial = next(e["serial"] for e in events if e.get("kind") == "pump")
    show_pump(service, serial, out)
    come_back(service, server, events, out)
    out.print(f"\nService: {service.url}/docs   key: {service.key}   log: {service.log}")
    out.print(f"EHR:     {server.base_url}/metadata")


@click.command()
@click.option("--once", is_flag=True, help="stop everything at the end")
def main(once: bool) -> None:
    """Play the storyline through the service into a real HAPI server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = Console(width=max(Console().width, 130))
    with tempfile.TemporaryDirectory(prefix="itb-demo-") as folder:
        out.print("Starting a real HAPI FHIR R4 server ...")
        server = start_hapi()
        service = None
        try:
            service = Service(Path(folder), server.base_url)
            tell(service, server, out)
            if not once:
                out.print("\nServing until Ctrl-C.")
                signal.pause()
        except DemoFailed as error:
            out.print(f"[bold red]The demonstration failed:[/] {error}")
            if service is not None:
                out.print(f"The service's last words:\n{service.log.read_text()[-3000:]}", markup=False)
            sys.exit(1)
        except KeyboardInterrupt:
            out.print("Stopped.")
        finally:
            if service is not None:
                service.stop()
            server.stop()


if __name__ == "__main__":
    main()
