"""Frames come out of a stream whole, however it was cut on the way, and nothing else does."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from service.mllp.framing import HEAD, Frame, Frames, framed, is_clean, unframed

MOST = 10_000
CONTENT = st.binary(max_size=60).filter(is_clean)
GARBAGE = st.binary(max_size=20).filter(lambda b: b"\x0b" not in b)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in zip(at, at[1:], strict=False)]


@given(
    st.lists(st.tuples(GARBAGE, CONTENT), max_size=6), GARBAGE, st.lists(st.integers(0, 10_000), max_size=20)
)
@example([(b"\x1c\r", b"a"), (b"", b"b")], b"", [1, 2, 3, 4, 5, 6])
def test_frames_are_found_however_the_stream_is_cut(
    parts: list[tuple[bytes, bytes]], rest: bytes, places: list[int]
) -> None:
    stream = b"".join(garbage + framed(content) for garbage, content in parts) + rest
    frames = Frames(MOST)
    found = [frame for piece in cut(stream, places) for frame in frames.feed(piece)]
    assert found == [Frame(content) for _, content in parts]
    assert not frames.inside
    assert frames.ignored == len(rest)


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=10), st.integers(1, 50))
def test_any_bytes_give_the_same_frames_in_one_piece_and_in_many(
    stream: bytes, places: list[int], most: int
) -> None:
    whole, pieces = Frames(most), Frames(most)
    found = [frame for piece in cut(stream, places) for frame in pieces.feed(piece)]
    assert found == whole.feed(stream)
    assert pieces.inside == whole.inside
    assert all(len(f.content) <= (most if f.whole else HEAD) for f in found)


def test_of_a_message_that_is_too_long_the_beginning_is_kept_and_little_memory_is_used() -> None:
    frames = Frames(100)
    assert frames.feed(b"\x0bMSH|" + b"x" * 200) == []
    for _ in range(100):
        assert frames.feed(b"y" * 10_000) == []
        assert len(frames._held) <= HEAD + 1
    (found, after) = frames.feed(b"\x1c\r" + framed(b"MSH|next"))
    assert (found.whole, found.content[:5]) == (False, b"MSH|x")
    assert after == Frame(b"MSH|next")


def test_an_end_that_is_cut_in_two_ends_a_message_that_is_too_long() -> None:
    frames = Frames(10)
    assert frames.feed(b"\x0b" + b"x" * 5000 + b"\x1c") == []
    (found,) = frames.feed(b"\r")
    assert found == Frame(b"x" * HEAD, whole=False)


def test_answers_are_taken_apart_again() -> None:
    assert unframed(framed(b"MSH|a") + framed(b"MSH|b")) == [b"MSH|a", b"MSH|b"]
