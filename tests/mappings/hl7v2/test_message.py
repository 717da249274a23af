"""ER7 text: split and rebuilt exactly, refused or read whatever it is, never a crash."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mappings.hl7v2.message import CODECS, Separators, Sizes, dump, escape, parse, unescape
from mappings.rows import MappingError

HEAD = "MSH|^~\\&|A|B|C|D|20250401100000-0500||ADT^A08^ADT_A01|1|P|2.6"


def rules(data: bytes, **options: object) -> list[str]:
    with pytest.raises(MappingError) as caught:
        parse(data, **options)  # type: ignore[arg-type]
    return [issue.rule for issue in caught.value.issues]


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_message_is_rebuilt_to_the_same_bytes(ending: str, last: bool) -> None:
    lines = [HEAD, 'PID|1||""^^^X~2||""|', "ZIT|a\\F\\b||~~^&", "OBX|1"]
    data = (ending.join(lines) + (ending if last else "")).encode()
    message = parse(data)
    assert dump(message) == data
    assert message.field("MSH", 1) == "|"
    assert message.field("MSH", 2) == "^~\\&"
    assert message.field("MSH", 12) == "2.6"
    assert message.field("PID", 3) == '""^^^X~2'
    assert message.field("PID", 99) == message.field("QRD", 1) == ""


def test_a_sender_may_choose_other_separators() -> None:
    data = b"MSH$*!?@$A$B\rPID$1$$7*8!9\r"
    message = parse(data)
    assert message.separators == Separators("$", "*", "!", "?", "@")
    assert dump(message) == data
    assert message.field("PID", 3) == "7*8!9"


def test_a_truncation_mark_of_v27_is_kept() -> None:
    data = b"MSH|^~\\&#|A\r"
    assert dump(parse(data)) == data


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if codec != "ascii"])
def test_each_character_set_is_read_and_written(name: str) -> None:
    word = {"euc_kr": "한", "big5": "中", "gb18030": "中", "iso2022_jp": "語", "shift_jis": "語"}.get(
        CODECS[name], "é" if CODECS[name] in ("utf-8", "iso8859-1", "iso8859-2", "iso8859-15") else "A"
    )
    data = f"{HEAD}||||||{name}\rPID|1||{word}\r".encode(CODECS[name])
    message = parse(data)
    assert message.field("PID", 3) == word
    assert dump(message) == data


def test_bytes_that_are_not_of_the_named_character_set_are_refused() -> None:
    assert rules(HEAD.encode() + b"\rPID|1||\xe9\r") == ["charset"]
    assert rules(f"{HEAD}||||||UNICODE UTF-8".encode() + b"\rPID|1||\xe9\r") == ["charset"]
    assert rules(f"{HEAD}||||||EBCDIC".encode()) == ["charset"]
    assert parse(HEAD.encode() + b"\rPID|1||\xe9\r", charset="8859/1").field("PID", 3) == "é"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "required"),
        (b"PID|1", "required"),
        (b"MSH", "separators"),
        (b"MSH|^~\\|A", "separators"),
        (b"MSH|^^\\&|A", "separators"),
        (b"MSHA^~\\&A", "separators"),
        (b"MSH|^~\\&|A\rpid|1", "segment"),
        (b"MSH|^~\\&|A\rMSH|^~\\&|B", "segment"),
        (b"MSH|^~\\&|A\r\nPID|1\rPV1", "segment-end"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, rule: str) -> None:
    assert rules(data) == [rule]


def test_sizes_are_limited() -> None:
    assert rules(HEAD.encode(), sizes=Sizes(bytes=10)) == ["size"]
    assert rules(HEAD.encode() + b"\rPID" * 9, sizes=Sizes(segments=5)) == ["size"]
    assert rules(HEAD.encode() + b"\rPID" + b"|" * 99, sizes=Sizes(fields=50)) == ["size"]


MARKS = [Separators(), Separators("$", "*", "!", "?", "@")]


@given(st.text(), st.sampled_from(MARKS))
@example("\\", MARKS[0])
@example("a\\F\\b\n|^~&\x00", MARKS[0])
def test_escaped_text_is_read_again_and_holds_no_separator(text: str, separators: Separators) -> None:
    written = escape(text, separators)
    assert unescape(written, separators) == text
    assert not {separators.field, separators.component, separators.repetition, "\r", "\n"} & set(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\\T\\b", "a&b"),
        ("one\\.br\\two", "one\ntwo"),
        ("\\X41\\", "A"),
        ("\\H\\loud\\N\\", "\\H\\loud\\N\\"),
        ("half \\ way", "half \\ way"),
        ("\\XFF\\", "\\XFF\\"),
        ("\\E\\F\\E\\", "\\F\\"),
    ],
)
def test_escapes(written: str, read: str) -> None:
    assert unescape(written) == read


FRAGMENTS = st.sampled_from(
    [
        b"MSH",
        b"|",
        b"^~\\&",
        b"\r",
        b"\n",
        b"PID",
        b'""',
        b"\\F\\",
        b"\xff",
        b"UNICODE UTF-8",
        b"^",
        b"~",
        b"ZIT",
    ]
)


@given(
    st.one_of(st.binary(), st.lists(FRAGMENTS).map(b"".join), st.binary().map(lambda b: b"MSH|^~\\&|" + b))
)
def test_any_bytes_are_rebuilt_or_refused(data: bytes) -> None:
    try:
        message = parse(data)
    except MappingError as error:
        assert all(issue.rule and issue.message for issue in error.issues)
        return
    assert dump(message) == data
