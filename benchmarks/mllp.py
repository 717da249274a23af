"""Durable, acknowledged messages a second over MLLP, beside stateless conversion of the same messages.

16 connections, each with one message in flight, to `itb mllp serve` on SQLite in a process of its own;
between the rounds the messages are converted to FHIR and validated in this process, without a ledger.
Refills, dose changes and devices of a made-up clinic.

    python benchmarks/mllp.py [--messages 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from zlib import crc32

from mappings.hl7v2 import SenderMap, dump, parse, write
from mappings.hl7v2.fhir import to_fhir
from mappings.stream import Converter
from mappings.validate import validate
from service.mllp.framing import framed, unframed
from service.server import free_port
from service.synthetic import clinic

CONNECTIONS = 16
BAR = 0.5
WRITTEN = SenderMap(sending=("BENCH", ""), accept_ack="", application_ack="")


def messages_of(number: int, rounds: int) -> list[list[list[bytes]]]:
    """For each round and connection its messages, those of a pump on one connection and in their order."""
    events = islice(clinic(number // 4, 3, 1), number * rounds)
    made: list[list[list[bytes]]] = [[[] for _ in range(CONNECTIONS)] for _ in range(rounds)]
    for at, event in enumerate(events):
        of = event.get("pump") or event.get("serial") or event["patient"]["value"]
        made[at // number][crc32(of.encode()) % CONNECTIONS].append(dump(write(event, WRITTEN)))
    return made


async def send_all(port: int, lanes: list[list[bytes]]) -> None:
    await asyncio.gather(*(send(port, lane) for lane in lanes))


async def send(port: int, lane: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for message in lane:
        writer.write(framed(message))
        answer = await reader.readuntil(b"\x1c\r")
        code = parse(unframed(answer)[0]).field("MSA", 1)
        assert code == "AA", f"{code}\n{message!r}\n{answer!r}"
    writer.close()


def over_mllp(port: int, lanes: list[list[bytes]]) -> float:
    """Messages a second."""
    started = time.perf_counter()
    asyncio.run(send_all(port, lanes))
    return sum(map(len, lanes)) / (time.perf_counter() - started)


def stateless(lanes: list[list[bytes]]) -> float:
    """Messages a second, as `itb convert hl7-to-fhir` makes and checks them."""
    started = time.perf_counter()
    converter = Converter()
    for lane in lanes:
        for message in lane:
            made = to_fhir(parse(message), WRITTEN, converter)
            assert made.bundles and not made.errors
            assert not any(validate(bundle) for bundle in made.bundles)
    return sum(map(len, lanes)) / (time.perf_counter() - started)


def serve(folder: str, port: int) -> subprocess.Popen[bytes]:
    """The service, listening."""
    senders = Path(folder) / "senders.toml"
    senders.write_text('[[sender]]\nname = "bench"\napplication = "BENCH"\n')
    env = os.environ | {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db", "ITB_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "service.cli", "mllp", "serve", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--senders", str(senders)], env=env, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # it says that it listens
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    warm_up, *rounds = messages_of(chosen.messages, chosen.rounds + 1)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port("127.0.0.1")
        process = serve(folder, port)
        try:
            over_mllp(port, [lane[:20] for lane in warm_up])
            found = []
            for lanes in rounds:
                durable, plain = over_mllp(port, lanes), stateless(lanes)
                found.append(durable / plain)
                print(f"{durable:6.0f}/s durable, {plain:6.0f}/s stateless, ratio {found[-1]:.2f}")
        finally:
            process.terminate()
            process.wait()
    ratio = statistics.median(found)
    print(f"median ratio {ratio:.2f}, wanted {BAR}")
    sys.exit(0 if ratio >= BAR else 1)


if __name__ == "__main__":
    main()
