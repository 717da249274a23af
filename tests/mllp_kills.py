"""Messages over MLLP through cut connections and a service that is killed, and what the ledger holds after.

`make mllp-kills` (100 000 messages, 50 kills) is the long run; the suite runs a short
one. Each connection is a sender with messages of one pump, several in flight; after a cut or a kill it sends
again from the first one without an answer, as an interface engine does. Now and then it sends one again that
was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mappings.hl7v2 import parse
from service.mllp.framing import framed
from service.server import free_port
from service.store import messages
from service.store.engine import Store
from site_of_mllp import (
    SENDERS,
    Line,
    all_events,
    all_messages,
    code_of,
    connect,
    interrogation,
    message,
)

TESTS = Path(__file__).resolve().parent
WINDOW = 8
"""Messages of one sender in flight at a time, at most."""


@dataclass
class Sender:
    """One sender: its messages in their order, and the first answer to each."""

    sent: list[bytes]
    answers: list[bytes] = field(default_factory=list)
    other_answers: int = 0
    cuts: int = 0

    @property
    def is_done(self) -> bool:
        return len(self.answers) == len(self.sent)


@dataclass
class Service:
    """The service as a process of its own; killed, it is started again on the same port."""

    folder: Path
    bug: str
    port: int = field(default_factory=lambda: free_port("127.0.0.1"))
    kills: int = 0

    def __post_init__(self) -> None:
        (self.folder / "senders.toml").write_text(SENDERS)
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "ITB_DATABASE_URL": f"sqlite:///{self.folder}/itb.db",
            "ITB_LOG_LEVEL": "error",
            "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        }
        listen = ["--listen", f"127.0.0.1:{self.port}", "--senders", str(self.folder / "senders.toml")]
        command = [sys.executable, "-m", "mllp_process", self.bug, *listen]
        return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL, and start again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        self.process = self._started()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Verdict:
    """What went wrong, by kind; empty for a service that keeps its word."""

    wrong: Counter[str]
    answered: int
    kills: int
    cuts: int
    seconds: float

    def __str__(self) -> str:
        found = ", ".join(f"{n} {what}" for what, n in sorted(self.wrong.items())) or "nothing wrong"
        return (
            f"{self.answered} messages answered AA, {self.cuts} connections cut, {self.kills} kills, "
            f"{self.seconds:.0f} s: {found}"
        )


def run(folder: Path, *, total: int, kills: int, senders: int, seed: int, bug: str = "none") -> Verdict:
    """Send everything until it is answered, then look at the ledger."""
    began = time.monotonic()
    each = total // senders
    everyone = [Sender([message(interrogation(p, n)) for n in range(each)]) for p in range(senders)]
    service = Service(folder, bug)
    try:
        asyncio.run(_send_all(service, everyone, kills, random.Random(seed)))
    finally:
        service.stop()
    wrong = check(Store(f"sqlite:///{folder}/itb.db"), everyone)
    answered = sum(len(one.answers) for one in everyone)
    cuts = sum(one.cuts for one in everyone)
    return Verdict(wrong, answered, service.kills, cuts, time.monotonic() - began)


async def _send_all(service: Service, everyone: list[Sender], kills: int, chance: random.Random) -> None:
    total = sum(len(one.sent) for one in everyone)
    marks = sorted(chance.randrange(total) for _ in range(kills))
    tasks = [
        asyncio.create_task(_send(service.port, one, random.Random(chance.random()))) for one in everyone
    ]
    while not all(task.done() for task in tasks):
        assert service.process.poll() is None, "the service ended by itself"
        answered = sum(len(one.answers) for one in everyone)
        if marks and answered >= marks[0]:
            marks.pop(0)
            await asyncio.sleep(chance.random() * 0.05)
            await asyncio.to_thread(service.kill)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)


async def _send(port: int, sender: Sender, chance: random.Random) -> None:
    while not sender.is_done:
        try:
            line = await connect(port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        try:
            async with asyncio.timeout(60):
                await _talk(line, sender, chance)
        except ConnectionError:
            pass
        finally:
            line.writer.close()


async def _talk(line: Line, sender: Sender, chance: random.Random) -> None:
    """Until all is answered, the other end is gone, or this end cuts the connection."""
    cut_after = chance.randrange(5, 200)
    waiting: list[int] = []
    following = len(sender.answers)
    while not sender.is_done:
        if sender.answers and chance.random() < 0.02:
            waiting.append(chance.randrange(len(sender.answers)))
            line.writer.write(framed(sender.sent[waiting[-1]]))
        while len(waiting) < WINDOW and following < len(sender.sent):
            waiting.append(following)
            line.writer.write(framed(sender.sent[following]))
            following += 1
            cut_after -= 1
            if cut_after <= 0:
                _cut(line, sender.sent[min(following, len(sender.sent) - 1)], chance)
                sender.cuts += 1
                return
        answer = await line.answer()
        if answer is None:
            return
        _heard(sender, waiting.pop(0), answer)


def _heard(sender: Sender, number: int, answer: bytes) -> None:
    control_id = parse(sender.sent[number]).field("MSH", 10)
    if code_of(answer) != "AA" or parse(answer).field("MSA", 2) != control_id:
        raise AssertionError(
            f"a good message was answered {code_of(answer)}, or the order of answers is wrong"
        )
    if number < len(sender.answers):
        sender.other_answers += answer != sender.answers[number]
    else:
        sender.answers.append(answer)


def _cut(line: Line, message: bytes, chance: random.Random) -> None:
    """In mid-message or between two, with a reset or an orderly end."""
    if chance.random() < 0.5:
        line.writer.write(framed(message)[: chance.randrange(1, len(message))])
    if chance.random() < 0.5:
        linger = struct.pack("ii", 1, 0)
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        line.writer.transport.abort()


def check(store: Store, everyone: list[Sender]) -> Counter[str]:
    """Every message that was answered AA is there once, with its event, its answer, and in its order."""
    wrong: Counter[str] = Counter()
    kept = all_messages(store)
    by_raw: dict[bytes, list[messages.Stored]] = {}
    for one in kept:
        by_raw.setdefault(one.raw, []).append(one)
    with store.read() as c:
        told = {one.id: messages.seqs(c, 1, one.id) for one in kept}
        ledger = [(e.seq, e.event["pump"], e.event["id"]) for e in all_events(store)]
    ids = Counter(id for _, _, id in ledger)
    for pump, sender in enumerate(everyone):
        wrong["answered otherwise on a resend"] += sender.other_answers
        for number, answer in enumerate(sender.answers):
            found = by_raw.get(sender.sent[number], [])
            times = ids[f"I-{pump}-{number}"]
            wrong["lost"] += not found or not times
            wrong["doubled"] += len(found) > 1 or times > 1
            wrong["without its event"] += any(len(told[one.id]) != 1 for one in found)
            wrong["kept with another answer"] += any(one.answer != framed(answer) for one in found)
        order = [int(id.rpartition("-")[2]) for _, of, id in ledger if of == f"NGP{pump}"]
        wrong["out of order"] += sum(a > b for a, b in zip(order, order[1:], strict=False))
    return +wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        verdict = run(
            Path(folder),
            total=chosen.messages,
            kills=chosen.kills,
            senders=chosen.senders,
            seed=chosen.seed,
        )
    print(verdict)
    sys.exit(1 if verdict.wrong else 0)


if __name__ == "__main__":
    main()
