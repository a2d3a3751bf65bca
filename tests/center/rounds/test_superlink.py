import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import httpx
import pytest

from center.rounds.superlink import SuperLink
from protocol.errors import BadInputError, UnavailableError

_CENTER = """
import sys, time
from pathlib import Path
from center.rounds.superlink import SuperLink
folder, ca, certificate, key = map(Path, sys.argv[1:])
link = SuperLink(folder=folder, certificate=certificate, key=key, ca_certificate=ca)
link.start()
print(link.pid, flush=True)
time.sleep(60)
"""


def _gone(pid: int, *, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def link(tmp_path, papers):
    link = SuperLink(
        folder=tmp_path / "superlink", certificate=papers.certificate, key=papers.key, ca_certificate=papers.ca
    )
    yield link
    link.stop()


def test_superlink_does_not_outlive_a_center_that_was_killed(tmp_path, papers):
    center = subprocess.Popen(
        [sys.executable, "-c", _CENTER, tmp_path / "superlink", papers.ca, papers.certificate, papers.key],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(center.stdout.readline())
    os.kill(pid, 0)
    center.kill()
    center.wait()
    center.stdout.close()
    assert _gone(pid, within=5)


def test_a_killed_superlink_is_back_on_its_port(link, papers):
    link.start()
    port, first = link.port, link.pid
    assert not link.watch()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert link.watch()
    assert (link.port, link.pid != first) == (port, True)
    trust = ssl.create_default_context(cafile=papers.ca)
    assert httpx.get(f"{link.url}/health", verify=trust, trust_env=False).is_success
    second = link.pid
    link.stop()
    assert _gone(second, within=1)


def test_a_retired_superlink_is_started_again_by_the_watcher(link):
    link.retire()  # none runs yet: nothing to retire
    link.start()
    port, first = link.port, link.pid
    link.retire()
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert link.watch()
    assert (link.port, link.pid != first) == (port, True)


def test_port_in_use_is_one_clear_error(tmp_path, papers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        link = SuperLink(
            folder=tmp_path,
            certificate=papers.certificate,
            key=papers.key,
            ca_certificate=papers.ca,
            port=taken.getsockname()[1],
        )
        with pytest.raises(BadInputError, match=f"port {link.port} on 127.0.0.1 cannot be used"):
            link.start()


def test_superlink_that_cannot_start_leaves_no_process(tmp_path, papers):
    link = SuperLink(folder=tmp_path, certificate=papers.ca, key=tmp_path / "no.key", ca_certificate=papers.ca)
    with pytest.raises(UnavailableError, match="ended while it started"):
        link.start()
    assert link.pid is None
    assert not link.alive()


def test_the_secret_that_entitles_to_run_code_is_readable_by_the_center_alone(link, tmp_path):
    secret = link.secret()
    assert len(secret) == 32
    assert link.secret() == secret
    assert stat.S_IMODE((tmp_path / "superlink" / "superexec.secret").stat().st_mode) == 0o600


def test_a_neighbour_on_the_machine_without_the_secret_cannot_take_a_run(superlink, papers):
    trust = ssl.create_default_context(cafile=papers.ca)
    answer = httpx.post(
        f"{superlink.url}/v1/runtime/acquire-task",
        headers={"content-type": "application/protobuf"},
        verify=trust,
        trust_env=False,
    )
    assert answer.status_code == 401
