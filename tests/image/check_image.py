"""What the container image would run, run here: `make install-runtime` puts it in ITB_IMAGE_PREFIX."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests

from service.server import free_port


@pytest.fixture
def prefix() -> Path:
    return Path(os.environ["ITB_IMAGE_PREFIX"])


def test_the_image_holds_the_service_and_no_test_tool(prefix: Path) -> None:
    assert subprocess.run([prefix / "bin" / "itb", "--version"], check=True).returncode == 0
    assert not (prefix / "bin" / "pytest").exists()


def test_the_image_serves_and_its_health_check_passes(prefix: Path, tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    env = {"PATH": os.environ["PATH"], "ITB_DATABASE_URL": f"sqlite:///{tmp_path}/itb.db"}
    command = [prefix / "bin" / "itb", "serve", "--port", str(port)]
    service = subprocess.Popen(command, env=env, cwd=tmp_path)
    try:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert ok(f"http://127.0.0.1:{port}{path}"), path
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0


def ok(url: str) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return requests.get(url, timeout=5).status_code == 200
        except requests.RequestException:
            time.sleep(0.1)
    return False
