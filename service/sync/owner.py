"""Who a worker is, so that others on its host can tell when it is gone.

A lease of a process that was killed would hold its lanes until it ends; a process that is known to be
gone holds nothing. Known is only what is seen: same host, same process namespace, no such process.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def _place() -> str:
    """The host and, where it is Linux, its process namespace: process numbers mean nothing elsewhere."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()} {namespace}"


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when there is no such process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words[19]  # proc(5): field 22, counted after the name


def process_name(pid: int | None = None) -> str:
    """`host namespace/pid/start`: no other process ever has the same."""
    found = os.getpid() if pid is None else pid
    return f"{_place()}/{found}/{_started(found) or '-'}"


def is_gone(owner: str) -> bool:
    """Whether the process in an owner's name (`process_name()`, then `/` and more) is known to be gone."""
    place, _, rest = owner.partition("/")
    pid, _, more = rest.partition("/")
    started = more.partition("/")[0]
    if place != _place() or place.endswith(" -") or started in ("", "-") or not pid.isdigit():
        return False
    return _started(int(pid)) != started
