"""Who may send: by MSH-3 and MSH-4, address and certificate; what a file of senders may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.mllp.senders import Book, Peer, SendersError, find, load

FILE = """
[[sender]]
name = "here"
application = "PUMPS"
facility = "CHILDRENS"

[[sender]]
name = "ward"
application = "PUMPS^1.2.3^ISO"
facility = "WARD"
addresses = ["10.1.0.0/16", "fd00::/8"]
processing = "T"

[[sender]]
name = "engine"
application = "ENGINE"
certificates = ["engine.invalid", "sha256:%s"]
""" % ("ab" * 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "senders.toml"
    made.write_text(FILE)
    return made


@pytest.mark.parametrize(
    ("application", "facility", "peer", "name"),
    [
        ("PUMPS", "CHILDRENS", Peer("127.0.0.1"), "here"),
        ("PUMPS^1.9^ISO", "CHILDRENS", Peer("::1"), "here"),
        ("PUMPS", "CHILDRENS", Peer("::ffff:127.0.0.1"), "here"),
        ("PUMPS", "CHILDRENS", Peer("10.1.2.3"), None),
        ("PUMPS", "OTHER", Peer("127.0.0.1"), None),
        ("pumps", "CHILDRENS", Peer("127.0.0.1"), None),
        ("PUMPS^1.2.3^ISO", "WARD", Peer("10.1.2.3"), "ward"),
        ("PUMPS^1.2.3^ISO", "WARD", Peer("fd00::1%eth0"), "ward"),
        ("PUMPS", "WARD", Peer("10.1.2.3"), None),
        ("PUMPS^1.2.3^ISO", "WARD", Peer("10.2.2.3"), None),
        ("ENGINE", "", Peer("192.0.2.1", frozenset({"engine.invalid"}), "sha256:00"), "engine"),
        ("ENGINE", "", Peer("192.0.2.1", frozenset(), "sha256:" + "ab" * 32), "engine"),
        ("ENGINE", "", Peer("127.0.0.1", frozenset({"other.invalid"}), "sha256:00"), None),
        ("ENGINE", "", Peer("127.0.0.1"), None),
        ("PUMPS", "CHILDRENS", Peer(""), None),
    ],
)
def test_a_sender_is_known_by_its_name_and_by_where_it_sends_from(
    file: Path, application: str, facility: str, peer: Peer, name: str | None
) -> None:
    found = find(load(file), application, facility, peer)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds one or more"),
        ("[[sender", "senders.toml"),
        ('[[sender]]\nname = "a"', "application"),
        ('[[sender]]\nname = "A"\napplication = "X"', "name must match"),
        ('[[sender]]\nname = "a"\napplication = "X"\naddress = "10.0.0.1"', "address"),
        ('[[sender]]\nname = "a"\napplication = "X"\naddresses = ["10.0.0.1/8"]', "10.0.0.1/8"),
        ('[[sender]]\nname = "a"\napplication = "X"\ncertificates = ["sha256:1"]', "64 hexadecimal"),
        ('[[sender]]\nname = "a"\napplication = "X"\nmap = "none.toml"', "none.toml"),
        ('[[sender]]\nname = "a"\napplication = "X"\nmap = "senders.toml"', "sender: is not known"),
        ('[[sender]]\nname = "a"\napplication = 1', "texts"),
        (
            '[[sender]]\nname = "a"\napplication = "X"\n[[sender]]\nname = "a"\napplication = "Y"',
            "told apart",
        ),
        (
            '[[sender]]\nname = "a"\napplication = "X"\n[[sender]]\nname = "b"\napplication = "X"',
            "told apart",
        ),
        ('zone = "UTC"\n[[sender]]\nname = "a"\napplication = "X"', "nothing else"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "senders.toml"
    file.write_text(text)
    with pytest.raises(SendersError, match=words):
        load(file)


def test_a_changed_file_of_one_sender_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "senders.toml"
    file.write_text('[[sender]]\nname = "a"\napplication = "X"\nmap = "a.toml"')
    (tmp_path / "a.toml").write_text("")
    book = Book(file)
    assert book.senders()[0].map.zone is None
    (tmp_path / "a.toml").write_text('zone = "America/Chicago"')
    (changed,) = book.senders()
    assert str(changed.map.zone) == "America/Chicago"
    assert book.senders()[0] is changed
