"""Encrypted connections with real certificates: who is let in, and what the sending end believes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from certificates import Authority, Certificate
from mappings.hl7v2 import Message, write
from service.mllp.client import MllpClient, Tls
from service.store import events
from service.store.engine import Store
from service.sync.ehr import Ambiguous, EhrError, Unreachable
from site_of_mllp import ORIGINAL, SENDERS, Beside, interrogation, settings_in


@dataclass(frozen=True)
class Files:
    ours: Authority
    others: Authority
    server: Certificate
    engine: Certificate
    ward: Certificate
    stranger: Certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("certificates")
    ours, others = Authority(folder, "ours"), Authority(folder, "others")
    return Files(
        ours,
        others,
        ours.sign("server", "DNS:localhost", "IP:127.0.0.1"),
        ours.sign("engine-a.invalid", "DNS:engine-a.invalid"),
        ours.sign("ward.invalid"),
        others.sign("engine-a.invalid", "DNS:engine-a.invalid"),
    )


@pytest.fixture
def beside(store: Store, tmp_path: Path, files: Files) -> Beside:
    (tmp_path / "senders.toml").write_text(SENDERS + 'certificates = ["engine-a.invalid"]\n')
    settings = settings_in(
        tmp_path,
        mllp_cert=files.server.cert,
        mllp_key=files.server.key,
        mllp_client_ca=files.ours.file,
    )
    return Beside(store, settings)


@pytest.fixture
def sent() -> Message:
    return write(interrogation(1, 1), ORIGINAL)


def line(beside: Beside, ca: str, certificate: Certificate | None, host: str = "127.0.0.1") -> MllpClient:
    own = (certificate.cert, certificate.key) if certificate is not None else ("", "")
    return MllpClient(host, beside.port, tls=Tls(ca, *own), timeout_s=10)


def ids(store: Store) -> list[str]:
    with store.read() as c:
        return [stored.event["id"] for stored in events.search(c, 1, limit=9)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_sender_with_its_certificate_is_let_in(
    beside: Beside, store: Store, files: Files, sent: Message, host: str
) -> None:
    client = line(beside, files.ours.file, files.engine, host)
    assert client.exchange(sent).code == "AA"
    assert client.exchange(sent).code == "AA"  # on the same connection
    client.close()
    assert ids(store) == ["I-1-1"]


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_without_a_certificate_of_the_authority_nothing_is_taken(
    beside: Beside, store: Store, files: Files, sent: Message, who: str
) -> None:
    client = line(beside, files.ours.file, files.stranger if who == "stranger" else None)
    with pytest.raises(EhrError) as raised:
        client.exchange(sent)
    assert type(raised.value) in (Unreachable, Ambiguous)
    assert ids(store) == []


def test_a_good_certificate_of_another_name_is_not_that_sender(
    beside: Beside, store: Store, files: Files, sent: Message
) -> None:
    found = line(beside, files.ours.file, files.ward).exchange(sent)
    assert (found.code, found.errors[0].where) == ("AR", "MSH^1^3")
    assert ids(store) == []


def test_a_sender_is_known_by_the_fingerprint_of_its_certificate(
    beside: Beside, store: Store, files: Files, sent: Message, tmp_path: Path
) -> None:
    (tmp_path / "senders.toml").write_text(SENDERS + f'certificates = ["{files.ward.fingerprint}"]\n')
    assert line(beside, files.ours.file, files.ward).exchange(sent).code == "AA"
    assert line(beside, files.ours.file, files.engine).exchange(sent).code == "AR"


def test_a_receiver_of_an_unknown_authority_is_told_nothing(
    beside: Beside, store: Store, files: Files, sent: Message
) -> None:
    with pytest.raises(Unreachable, match="SSLCertVerificationError"):
        line(beside, files.others.file, files.engine).exchange(sent)
    assert ids(store) == []


def test_a_receiver_whose_certificate_names_another_host_is_told_nothing(
    store: Store, files: Files, sent: Message, tmp_path: Path
) -> None:
    other = files.ours.sign("other", "DNS:elsewhere.invalid")
    beside = Beside(store, settings_in(tmp_path, mllp_cert=other.cert, mllp_key=other.key))
    with pytest.raises(Unreachable, match="IP address mismatch"):
        line(beside, files.ours.file, None).exchange(sent)
    assert ids(store) == []


def test_a_connection_in_plain_text_is_not_taken(beside: Beside, store: Store, sent: Message) -> None:
    with pytest.raises(Ambiguous):
        MllpClient("127.0.0.1", beside.port, timeout_s=10).exchange(sent)
    assert ids(store) == []


def test_renewed_files_count_from_the_next_connection_on(
    beside: Beside, files: Files, sent: Message, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    client = MllpClient("127.0.0.1", beside.port, tls=Tls(files.ours.file, str(cert), str(key)), timeout_s=10)
    with pytest.raises(Unreachable, match="FileNotFoundError"):
        client.exchange(sent)
    shutil.copy(files.engine.cert, cert)
    shutil.copy(files.engine.key, key)
    assert client.exchange(sent).code == "AA"
