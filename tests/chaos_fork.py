"""Starts processes of the service and of the workers quickly: all is imported and compiled once, then forked.

Run as a program. It reads a JSON object a line: `{"role": "worker" | "service", …}` starts a process and
answers with its pid, `{"reap": pid}` waits for the end of one (its exit status, negative: the signal),
`{"ended": true}` gives pid and exit status of those that ended by themselves. Its children run the service's
own code: the WSGI application, and what `itb worker` runs.

The clock of the children goes `speed` times as fast as ours, so that delays pass while one looks.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg  # noqa: F401  (imported once, for all children)
from werkzeug.serving import WSGIRequestHandler, make_server

import chaos_bugs
import crash_points
from mappings import read_fhir
from mappings.stream import Converter
from mappings.validate import validate
from service import server
from service.app import create_app
from service.settings import Settings
from service.store.engine import Store
from service.synthetic import clinic

PR_SET_PDEATHSIG = 1


def clock(speed: float) -> Callable[[], datetime]:
    """A clock that all processes share: the real one, `speed` times as fast since the start of 2026."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return lambda: begin + timedelta(seconds=(time.time() - begin.timestamp()) * speed)


class Silent(WSGIRequestHandler):
    """No line for each request."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def serve(order: dict[str, Any]) -> None:
    """The application on its port, as any WSGI server runs it."""
    settings = Settings(database_url=order["url"], require_key=False, worker=False, log_level="warning")
    app = create_app(settings, clock(order["speed"]))
    make_server("127.0.0.1", order["port"], app, threaded=True, request_handler=Silent).serve_forever(0.05)


def work(order: dict[str, Any]) -> None:
    """What `itb worker` runs."""
    server.now = clock(order["speed"])
    server.run_worker(Store(order["url"]), order.get("engine", "embedded"))


ROLES = {"service": serve, "worker": work}


def child(order: dict[str, Any]) -> None:
    """Never returns."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        random.seed()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        chaos_bugs.install(order.get("bug"))
        crash_points.install(order.get("crash_at"))
        ROLES[order["role"]](order)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def warm_up() -> None:
    """Compile what is compiled on first use: the schemas of R4, the rows of the mappings."""
    converter = Converter()
    for event in clinic(3, 2, seed=0):
        bundle = converter.to_fhir(event)
        read_fhir(bundle, source="warm-up")
        for entry in bundle["entry"]:
            validate(entry["resource"])


def main() -> None:
    warm_up()
    gc.freeze()  # else each child copies what it only counts
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            answer: Any = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        elif "ended" in order:
            answer = []
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                answer.append((pid, os.waitstatus_to_exitcode(status)))
        else:
            answer = os.fork()
            if answer == 0:
                child(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
