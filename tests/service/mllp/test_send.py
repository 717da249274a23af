"""`itb mllp send`: what it prints and how it ends, plain and encrypted; which answers a client believes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certificates import Authority
from mappings.exact_json import loads
from mappings.hl7v2 import Message, parse, write
from service import cli
from service.mllp.client import Acknowledged, MllpClient, Reported, acknowledged
from service.mllp.framing import Frames, framed
from service.server import free_port
from service.store import events
from service.store.engine import Store
from service.sync.ehr import Ambiguous
from site_of_mllp import ENHANCED, ORIGINAL, Beside, interrogation, message, settings_in
from site_of_receiver import answered

SENT = [message(interrogation(1, number)) for number in range(3)]
IDS = [parse(one).field("MSH", 10) for one in SENT]


def send(*arguments: str, stdin: bytes = b"") -> Any:
    return CliRunner().invoke(cli.main, ["mllp", "send", *arguments], input=stdin)


def ids(store: Store) -> list[str]:
    with store.read() as c:
        return [stored.event["id"] for stored in events.search(c, 1, limit=9)]


@pytest.fixture
def beside(store: Store, tmp_path: Path) -> Beside:
    return Beside(store, settings_in(tmp_path))


def test_each_message_is_sent_and_its_answer_printed(beside: Beside, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "messages.hl7"
    file.write_bytes(b"".join(SENT))
    done = send(f"127.0.0.1:{beside.port}", str(file))
    assert (done.exit_code, done.stdout) == (0, "".join(f"{id}\tAA\n" for id in IDS))
    again = send(f"127.0.0.1:{beside.port}", stdin=b"".join(map(framed, SENT)))
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert ids(store) == ["I-1-0", "I-1-1", "I-1-2"]


def test_a_refused_message_is_named_and_stops_no_other(beside: Beside, store: Store) -> None:
    bad = SENT[1].replace(b"|12.5|mL^mL^UCUM|", b"|12.5|gal^gal^UCUM|")
    done = send(f"127.0.0.1:{beside.port}", stdin=SENT[0] + bad + SENT[2])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[1] == f"{IDS[1]}\tAE\tE 207 OBX^2^6"
    assert ids(store) == ["I-1-0", "I-1-2"]


def test_what_is_no_message_is_not_sent(beside: Beside, store: Store) -> None:
    done = send(f"127.0.0.1:{beside.port}", stdin=framed(SENT[0]) + framed(b"nothing") + framed(SENT[1]))
    assert (done.exit_code, "message 2: MSH: required" in done.stderr) == (1, True)
    assert ids(store) == ["I-1-0", "I-1-1"]


def test_the_report_tells_each_refusal(beside: Beside) -> None:
    bad = SENT[1].replace(b"|12.5|mL^mL^UCUM|", b"|12.5|gal^gal^UCUM|")
    done = send(f"127.0.0.1:{beside.port}", "--report", "json", stdin=SENT[0] + bad)
    told = loads(done.stdout.encode())
    assert (told["status"], told["counts"]) == (1, {"acknowledged": 1, "refused": 1})
    (item,) = told["items"]
    assert (item["message"], item["control_id"], item["code"]) == (2, IDS[1], "AE")
    assert item["issues"][0]["path"] == "OBX^2^6"


def test_a_receiver_that_is_not_there_ends_with_3() -> None:
    done = send(f"127.0.0.1:{free_port('127.0.0.1')}", stdin=SENT[0])
    assert (done.exit_code, "message 1: no MLLP connection" in done.stderr) == (3, True)


@pytest.mark.parametrize("to", ["127.0.0.1", "127.0.0.1:x", ":"])
def test_an_address_that_is_none_is_a_wrong_call(to: str) -> None:
    assert send(to, stdin=SENT[0]).exit_code == 2


def test_over_an_encrypted_connection(store: Store, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    server, own = authority.sign("server", "IP:127.0.0.1"), authority.sign("engine-a.invalid")
    settings = settings_in(
        tmp_path, mllp_cert=server.cert, mllp_key=server.key, mllp_client_ca=authority.file
    )
    to = f"127.0.0.1:{Beside(store, settings).port}"
    done = send(to, "--ca", authority.file, "--cert", own.cert, "--key", own.key, stdin=SENT[0])
    assert (done.exit_code, done.stdout) == (0, f"{IDS[0]}\tAA\n")
    assert send(to, "--tls", stdin=SENT[0]).exit_code == 3  # the system's authorities do not know it
    wrong = send(to, "--ca", server.key, stdin=SENT[0])
    assert (wrong.exit_code, "cannot be used" in wrong.stderr) == (2, True)


# --- what a client believes -----------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[MllpClient]:
    """A client of a receiver that answers each message with these bytes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = server.accept()
        frames = Frames(1_000_000)
        with line:
            while data := line.recv(65_536):
                for frame in frames.feed(data):
                    line.sendall(answer(frame.content))

    threading.Thread(target=serve, daemon=True).start()
    client = MllpClient("127.0.0.1", server.getsockname()[1], timeout_s=0.3)
    with server:
        yield client
        client.close()


BOTH = write(interrogation(1, 1), replace(ENHANCED, application_ack="AL"))
ONE = write(interrogation(1, 1), ENHANCED)
OLD = write(interrogation(1, 1), ORIGINAL)


@pytest.mark.parametrize(
    ("sent", "codes", "counts"),
    [
        (OLD, ["AA"], "AA"),
        (ONE, ["CA"], "CA"),
        (ONE, ["AA"], "AA"),
        (BOTH, ["CA", "AA"], "AA"),
        (BOTH, ["CA", "AE"], "AE"),
        (BOTH, ["CE"], "CE"),
    ],
)
def test_the_answer_that_counts_is_the_one_that_was_asked_for(
    sent: Message, codes: list[str], counts: str
) -> None:
    with answering(lambda data: b"".join(answered(data, code) for code in codes)) as client:
        assert client.exchange(sent).code == counts


@pytest.mark.parametrize(
    "answer",
    [
        lambda data: answered(data, "CA"),  # and the AA that was asked for never comes
        lambda data: answered(data, "AA", control_id="ANOTHER"),
        lambda data: answered(data, "ZZ"),
        lambda data: answered(data, "AA")[:-2],
        lambda data: answered(data, "AA")[1:],
        lambda data: framed(b"MSH|^~\\&|A\rMSA|AA\r"),
        lambda data: framed(b"HTTP/1.1 200 OK"),
        lambda data: framed(b""),
        lambda data: b"x" * 1_000_001,
        lambda data: framed(b"MSH|^~\\&|" + b"x" * 1_000_001),
    ],
)
def test_an_answer_that_cannot_be_used_leaves_the_outcome_unknown(answer: Callable[[bytes], bytes]) -> None:
    with answering(answer) as client, pytest.raises(Ambiguous):
        client.exchange(BOTH)


def test_what_an_answer_says_of_a_patient_is_not_kept() -> None:
    said = b"MSH|^~\\&|A\rMSA|AE|1|MRN1 is unknown\rERR||MRN1 in PID|MRN1 is unknown^x|E|||MRN1|MRN1\r"
    found = acknowledged(said + b"ERR||PID^1^3|204^Unknown^HL70357|E\r", "1")
    assert found == Acknowledged("AE", (Reported("", "", "E"), Reported("PID^1^3", "204", "E")))


def test_our_own_receiver_gives_both_answers(beside: Beside, store: Store) -> None:
    client = MllpClient("127.0.0.1", beside.port, timeout_s=10)
    assert client.exchange(BOTH).code == "AA"
    assert client.exchange(ONE).code == "CR"  # the same control id for another content (MSH-16)
    client.close()
