"""Every route, whoever has added it, under schemathesis: no 5xx, and nothing but what the OpenAPI says."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 30


TOLD = f"""
    --phases examples,coverage,fuzzing --max-examples 60 --max-time {SECONDS}
    --workers 2 --seed 7 --generation-with-security-parameters false --generation-database none
    --continue-on-failure --no-color --warnings off
""".split()


def test_no_route_breaks_or_says_what_it_does_not_document(agent, tmp_path):
    program = [Path(sys.executable).with_name("schemathesis"), "--config-file", HERE / "schemathesis.toml", "run"]
    ran = subprocess.run(
        [*program, f"{agent.url}/openapi.json", *TOLD, "--header", f"X-API-Key: {agent.key}"],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "media_types", "PYTHONPATH": str(HERE)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    assert agent.alive()
    assert "a request failed" not in agent.log()
