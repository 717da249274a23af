"""Where one message ends and the next begins in a stream of bytes: MLLP of HL7 v2. Pure.

A frame is 0x0B, the message, 0x1C 0x0D. Neither 0x0B nor 0x1C may stand in a message, so a frame with one of
them inside is two messages run into one, or text that pretends to be one: `is_clean` tells, and it is refused
as a whole rather than cut where the pretender would like it.
"""

from __future__ import annotations

from dataclasses import dataclass

START = b"\x0b"
END = b"\x1c\r"
HEAD = 4096
"""How much is kept of a message that is too long: enough to answer it by its MSH."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stood between a start and its end; `whole` is False for the beginning of one that was too long."""

    content: bytes
    whole: bool = True


def framed(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return START + message + END


def is_clean(content: bytes) -> bool:
    """No framing byte inside."""
    return START not in content and END[:1] not in content


class Frames:
    """Cuts a stream into frames, however it was split or merged on the way; keeps at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._searched = 0
        self._too_long = False
        self.inside = False
        self.ignored = 0
        """Bytes outside any frame since the last frame began."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that end in `data`."""
        self._held += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> Frame | None:
        if not self.inside and not self._begin():
            return None
        end = self._held.find(END, self._searched)
        length = len(self._held) if end < 0 else end
        if length > self._most:
            self._too_long = True
        if end < 0:
            if self._too_long and length > HEAD:  # the last byte may be the first half of an end
                del self._held[HEAD:-1]
            self._searched = max(0, len(self._held) - 1)
            return None
        content = bytes(self._held[: HEAD if self._too_long else end])
        frame = Frame(content[:end], not self._too_long)
        del self._held[: end + len(END)]
        self.inside, self._searched, self._too_long = False, 0, False
        return frame

    def _begin(self) -> bool:
        start = self._held.find(START)
        skipped = len(self._held) if start < 0 else start
        self.ignored += skipped
        del self._held[: skipped if start < 0 else skipped + 1]
        self.inside = start >= 0
        if self.inside:
            self.ignored = 0
        return self.inside


def unframed(data: bytes) -> list[bytes]:
    """The messages of some whole frames."""
    return [frame.content for frame in Frames(len(data)).feed(data)]
