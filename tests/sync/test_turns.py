"""Calls to an EHR take turns: never more at a time than its endpoint says, and none is left out."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fakes import URL, InProcess
from service.fake_ehr.wire import Request, Response
from service.sync.ehr import Ambiguous, HttpEhr
from service.sync.turns import Turns

DEADLINE_S = 30


def on_threads(number: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


class Counted:
    """An EHR's server that answers when two requests are with it; the most that were there at a time."""

    def __init__(self) -> None:
        self.most = self._within = 0
        self._lock = threading.Lock()
        self._both = threading.Barrier(2)

    def handle(self, _: Request) -> Response:
        with self._lock:
            self._within += 1
            self.most = max(self.most, self._within)
        self._both.wait(DEADLINE_S)
        with self._lock:
            self._within -= 1
        return Response(200, {"resourceType": "Patient", "id": "1"})

    def ehr(self, turns: Turns) -> HttpEhr:
        made = HttpEhr(URL, turns=turns)
        made._session.mount("http://", InProcess(self.handle))
        return made


CALLS: list[Callable[[HttpEhr], object]] = [
    lambda ehr: ehr.read("Patient", "1"),
    lambda ehr: ehr.create({"resourceType": "Patient"}, "identifier=a|b"),
]


@pytest.mark.parametrize("call", CALLS)
def test_two_at_a_time_are_two_and_no_more(call: Callable[[HttpEhr], object]) -> None:
    server, turns = Counted(), Turns(2)
    on_threads(10, lambda: call(server.ehr(turns)))
    assert server.most == 2


def test_a_call_that_fails_gives_its_turn_back() -> None:
    turns = Turns(1)
    ehr = HttpEhr(URL, turns=turns)
    ehr._session.mount("http://", InProcess(lambda _: Response(500, {"resourceType": "OperationOutcome"})))
    for call in CALLS:
        with pytest.raises(Ambiguous):
            call(ehr)
    on_threads(1, turns.__enter__)


def test_how_many_may_change_while_some_wait() -> None:
    server, turns = Counted(), Turns(1)
    waits = threading.Thread(target=lambda: on_threads(2, lambda: CALLS[0](server.ehr(turns))), daemon=True)
    waits.start()
    turns.allow(2)
    waits.join(DEADLINE_S)
    assert server.most == 2
