"""The SuperLink of the center's tests, for what can only be seen at both ends."""

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[1] / "center" / "conftest.py"
_spec = importlib.util.spec_from_file_location("center_fixtures", _path)
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

papers = _fixtures.papers
superlink = _fixtures.superlink
center = _fixtures.center
crew = _fixtures.crew
gateway = _fixtures.gateway
rounds = _fixtures.rounds
