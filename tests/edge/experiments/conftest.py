import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("experiment_shop", Path(__file__).with_name("shop.py"))
_shop = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shop)


@pytest.fixture
def trading():
    return _shop


@pytest.fixture
def trade(make_service, load_release):
    return _shop.Trade(make_service(load_release(3)))
