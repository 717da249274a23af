"""HL7 v2 to FHIR on one core: this project beside LinuxForHealth's converter and python-hl7's bare parse.

The same ORU^R01 and RDE^O11 (golden messages of ours) for all three, in turns, several rounds, on one core:

* ours: bytes -> parsed -> event, checked -> transaction Bundle -> strict R4 validation
* LinuxForHealth hl7v2-fhir-converter 1.0.19: text -> Bundle, warmed up in one Java process
* python-hl7: text -> its parse, and nothing else

Seconds are those of the processor, so that what else runs on the machine does not count.

Correctness first: values digit for digit in what comes out, OBX whose value is there, errors by the HL7
validator (a real HAPI), and whether the same message gives the same FHIR again.

    python benchmarks/hl7.py [--rounds 5] [--seconds 3] [--warm-up 30]

Exits 1 when ours is below 12 times the converter, or slower than the bare parse.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, parse
from mappings.hl7v2.fhir import to_fhir
from mappings.stream import Converter
from mappings.validate import validate
from service.hapi_server import start_hapi

HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [folder for folder in sys.path if folder != HERE]  # this file has the rival's name
hl7 = importlib.import_module("hl7")
ROOT = Path(__file__).resolve().parent.parent
RIVAL = ROOT / "benchmarks" / "linuxforhealth" / "target"
CASES = {"ORU^R01": "interrogation/full", "RDE^O11": "dose-change/flex-with-bridge"}
BAR = 12
Json = Any


class LinuxForHealth:
    """The converter in a Java process of its own, on our core."""

    def __init__(self) -> None:
        path = f"{RIVAL}/linuxforhealth.jar:{(RIVAL / 'classpath').read_text().strip()}"
        self.process = subprocess.Popen(
            ["java", "-cp", path, "itb.benchmarks.Convert"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def convert(self, data: bytes, seconds: float) -> tuple[float, bytes]:
        """(messages a second, the last result) of converting for so long."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"%.2f " % seconds + base64.b64encode(data) + b"\n")
        self.process.stdin.flush()
        done, took, made = self.process.stdout.readline().split()
        return int(done) / int(took) * 1e9, base64.b64decode(made)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def ours(data: bytes) -> Json:
    """One message to its checked Bundle."""
    (bundle,) = to_fhir(parse(data), SENDER, Converter()).bundles
    if validate(bundle):
        raise AssertionError("the Bundle is not valid")
    return bundle


SENDER = SenderMap()


def rate(work: Callable[[], Any], seconds: float) -> float:
    """Calls a second of processor time, over so many of them."""
    done, begun = 0, time.process_time()
    until = begun + seconds
    while (now := time.process_time()) < until:
        work()
        done += 1
    return done / (now - begun)


# --- correctness ----------------------------------------------------------------------------------------


def told(segment: list[str]) -> str:
    """What an OBX says: the code of a coded value, else the value."""
    return segment[5].split("^")[0] if len(segment) > 5 else ""


def found(value: str, type: str, text: str) -> bool:
    """Whether the output holds it digit for digit; a date or time in FHIR's spelling."""
    if type in ("DT", "DTM"):
        return value[:8] in re.sub(r"[-:T]", "", text)
    if type == "NM":
        return re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.])", text) is not None
    return value in text


def kept(data: bytes, text: str) -> str:
    """How many OBX have their value in the output."""
    lines = [s for s in parse(data).segments if s[0] == "OBX"]
    return f"{sum(found(told(s), s[2], text) for s in lines)}/{len(lines)}"


def digits(data: bytes, text: str) -> str:
    """How many numbers with digits that a float would lose are there with all of them."""
    body = data[data.index(b"\r") :]
    numbers = set(re.findall(rb"(?<=[|^])\d+\.\d+(?=[|^\r])", body))
    return f"{sum(found(n.decode(), 'NM', text) for n in numbers)}/{len(numbers)}"


def errors(hapi: str, bundle: Json) -> int:
    """Errors that HAPI's $validate finds in the resources of a Bundle."""
    number = 0
    for entry in bundle["entry"]:
        resource = entry["resource"]
        url = f"{hapi}/{resource['resourceType']}/$validate"
        headers = {"Content-Type": "application/fhir+json"}
        answer = requests.post(url, data=dumps(resource), headers=headers, timeout=120)
        issues = answer.json().get("issue", [])
        number += sum(issue["severity"] in ("error", "fatal") for issue in issues)
    return number


def correctness(messages: dict[str, bytes], rival: LinuxForHealth) -> None:
    """The columns that count before any speed."""
    print(f"{'':24}{'digits':>9}{'OBX kept':>10}{'errors':>8}{'again the same':>16}")
    with tempfile.TemporaryDirectory() as folder:
        server = start_hapi(log_path=Path(folder) / "hapi.log")
        try:
            for name, data in messages.items():
                made, again = dumps(ours(data)), dumps(ours(data))
                theirs, repeated = rival.convert(data, 0)[1], rival.convert(data, 0)[1]
                for whose, one, two in (("ours", made, again), ("LinuxForHealth", theirs, repeated)):
                    text = one.decode()
                    wrong = errors(server.base_url, loads(one))
                    row = f"{digits(data, text):>9}{kept(data, text):>10}{wrong:>8}{one == two!s:>16}"
                    print(f"{name} {whose:16}{row}")
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument(
        "--warm-up", type=float, default=30, help="seconds, of the Java process, each message"
    )
    chosen = parser.parse_args()
    golden = ROOT / "fixtures" / "golden"
    messages = {name: (golden / f"{case}.hl7").read_bytes() for name, case in CASES.items()}
    rival = LinuxForHealth()
    try:
        correctness(messages, rival)
        if hasattr(os, "sched_setaffinity"):
            core = {min(os.sched_getaffinity(0))}
            for pid in (0, *(int(task.name) for task in Path(f"/proc/{rival.process.pid}/task").iterdir())):
                os.sched_setaffinity(pid, core)
        met = [measured(*one, rival, chosen) for one in messages.items()]
        sys.exit(0 if all(met) else 1)
    finally:
        rival.stop()


def measured(name: str, data: bytes, rival: LinuxForHealth, chosen: argparse.Namespace) -> bool:
    """Messages a second of the three, in turns; whether both bars are met."""
    text = data.decode()
    rival.convert(data, chosen.warm_up)
    rates: dict[str, list[float]] = {"ours": [], "LinuxForHealth": [], "python-hl7 parse": []}
    for _ in range(chosen.rounds):
        rates["ours"].append(rate(lambda: ours(data), chosen.seconds))
        rates["LinuxForHealth"].append(rival.convert(data, chosen.seconds)[0])
        rates["python-hl7 parse"].append(rate(lambda: hl7.parse(text), chosen.seconds))
    middle = {who: statistics.median(found) for who, found in rates.items()}
    for who, found in rates.items():
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"{name} {who:18}{middle[who]:>10,.0f} messages/s   ({spread})")
    times = middle["ours"] / middle["LinuxForHealth"]
    beside = middle["ours"] / middle["python-hl7 parse"]
    print(f"{name} {times:.1f} times the converter (bar {BAR}), {beside:.2f} times the bare parse (bar 1)")
    return times >= BAR and beside >= 1


if __name__ == "__main__":
    main()
