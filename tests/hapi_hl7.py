"""HAPI's HL7 v2 parser as a process: `Judge.verdict(message)` says `ok`, or what is wrong with it."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "hapi-hl7"


class Judge:
    """One Java process; `stop` ends it."""

    def __init__(self) -> None:
        built = FIXTURE / "target" / "classpath"
        assert built.exists(), "run `make hapi-build` first"
        path = f"{FIXTURE}/target/hapi-hl7.jar:{built.read_text().strip()}"
        self.process = subprocess.Popen(
            [
                "java",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
                path,
                "itb.fixtures.hl7.Hl7Parser",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def verdict(self, message: bytes) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(message) + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
