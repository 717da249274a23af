"""A stream's form is detected, its messages are cut out whole, and a bad one costs no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import golden
from mappings.hl7v2 import parse
from mappings.hl7v2.framing import FRAMES, framed, messages
from mappings.hl7v2.message import Sizes
from mappings.rows import MappingError

SENT = [golden.sibling(p, ".hl7").read_bytes() for p in golden.GOLDEN[:6]]


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.sampled_from(FRAMES), st.integers(1, 4000), st.sampled_from([b"", b"\n", b" \r\n"]))
def test_each_form_is_detected_and_cut_into_its_messages(frame: str, size: int, before: bytes) -> None:
    stream = before + b"".join(framed(parse(data), frame) for data in SENT)
    assert list(messages(chunks(stream, size))) == list(enumerate(SENT, start=1))


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_text_with_other_line_ends_and_a_batch_around_it(ending: bytes) -> None:
    texts = [data.replace(b"\r", ending) for data in SENT]
    around = [b"FHS|^~\\&|A" + ending, b"BHS|^~\\&|A" + ending, *texts, b"BTS|6" + ending, b"FTS|1" + ending]
    assert [data for _, data in messages([b"".join(around)])] == texts


def test_an_empty_stream_holds_no_message() -> None:
    assert list(messages([])) == list(messages([b"", b"\r\n"])) == []


def test_what_is_too_large_is_one_error_and_the_next_message_is_read() -> None:
    large = SENT[0] + b"ZIT|" + b"x" * 5000 + b"\r"
    found = list(messages(chunks(large + SENT[1], 100), sizes=Sizes(bytes=4000)))
    assert isinstance(found[0][1], MappingError)
    assert found[1] == (2, SENT[1])


@pytest.mark.parametrize(
    "stream",
    [
        b"\x0bMSH|a\x1c\rgarbage\x1c\r\x0bMSH|b\x1c\r",
        b'"MSH|a"\n{"no": "message"}\n"MSH|b"\n',
        b'"MSH|a"\n"half\n"MSH|b"\n',
    ],
)
def test_a_bad_piece_stops_no_other(stream: bytes) -> None:
    first, second, third = [data for _, data in messages([stream])]
    assert (first, third) == (b"MSH|a", b"MSH|b")
    assert isinstance(second, MappingError)


@given(st.integers(1, 400), st.integers(1, 4000))
def test_an_mllp_block_that_is_cut_short_is_no_message(gone: int, size: int) -> None:
    stream = b"".join(framed(parse(data), "mllp") for data in SENT[:2])[:-gone]
    found = [piece for _, piece in messages(chunks(stream, size))]
    if gone == 1:  # the return behind the end
        assert found == SENT[:2]
        return
    whole, cut = found
    assert whole == SENT[0]
    assert isinstance(cut, MappingError)
    assert [issue.rule for issue in cut.issues] == ["framing"]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_cut_or_refused(data: bytes, size: int) -> None:
    for number, piece in messages(chunks(data, size), sizes=Sizes(bytes=100)):
        assert number > 0
        assert isinstance(piece, (bytes, MappingError))
