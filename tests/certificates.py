"""Authorities and certificates of the tests, made by `openssl`: real ones, as the handshake checks them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files (PEM) of a certificate and its key."""

    cert: str
    key: str

    @property
    def fingerprint(self) -> str:
        """As a file of senders has it."""
        said = _openssl("x509", "-in", self.cert, "-noout", "-fingerprint", "-sha256")
        return "sha256:" + said.strip().rpartition("=")[2].replace(":", "").lower()


class Authority:
    """Signs certificates, all of them good for a week."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.file = str(folder / f"{name}.pem")
        _made(self.file, str(folder / f"{name}.key"), f"/CN={name}")

    def sign(self, name: str, *also: str) -> Certificate:
        """A certificate with that common name; `also` as `DNS:name` or `IP:address`."""
        at = self._folder / f"{self._name}-{name}"
        made = Certificate(f"{at}.pem", f"{at}.key")
        signed = ("-CA", self.file, "-CAkey", str(self._folder / f"{self._name}.key"))
        alternative = ("-addext", f"subjectAltName={','.join(also)}") if also else ()
        usage = ("-addext", "basicConstraints=critical,CA:FALSE")
        _made(made.cert, made.key, f"/CN={name}", *signed, *alternative, *usage)
        return made


def _made(cert: str, key: str, subject: str, *more: str) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    _openssl("req", "-x509", *curve, "-keyout", key, "-out", cert, "-days", "7", "-subj", subject, *more)


def _openssl(*arguments: str) -> str:
    if shutil.which("openssl") is None:
        raise FileNotFoundError("missing: openssl; on Debian: sudo apt-get install openssl")
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
