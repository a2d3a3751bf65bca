"""The SuperLink of the center's tests, for what can only be seen at both ends; the shop of the serving tests."""

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

_shop_path = Path(__file__).parent / "shop.py"
_shop_spec = importlib.util.spec_from_file_location("shop_fixtures", _shop_path)
_shop = importlib.util.module_from_spec(_shop_spec)
_shop_spec.loader.exec_module(_shop)

catalogue_directory = _shop.catalogue_directory
catalogue = _shop.catalogue
rng = _shop.rng
clock = _shop.clock
make_bundle = _shop.make_bundle
load_release = _shop.load_release
buy = _shop.buy
store = _shop.store
stocked = _shop.stocked
make_service = _shop.make_service

_town_path = Path(__file__).parent / "attacks" / "conftest.py"
_town_spec = importlib.util.spec_from_file_location("town_fixtures", _town_path)
_town = importlib.util.module_from_spec(_town_spec)
_town_spec.loader.exec_module(_town)

town = _town.town
