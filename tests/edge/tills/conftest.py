import importlib.util
from pathlib import Path

import pytest

from center.mqtt.broker import mosquitto_path

_spec = importlib.util.spec_from_file_location("till_site", Path(__file__).with_name("site.py"))
_site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_site)
KINDS = ["mosquitto", "embedded"] if mosquitto_path() else ["embedded"]


@pytest.fixture
def till():
    return _site


@pytest.fixture(params=KINDS)
def broker(request, tmp_path):
    started = _site.SiteBroker(tmp_path / "broker", request.param)
    yield started
    started.stop()


@pytest.fixture
def site(tmp_path, broker, make_service, load_release):
    return _site.Site(tmp_path, make_service(load_release(3)), broker)
