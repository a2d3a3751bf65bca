"""From a folder to the rings, by orders alone: a real repository, a real broker, no center that serves."""

from contextlib import closing, contextmanager

import pytest

from center import releasing
from center.founding import open_repository
from center.orders import Orders
from center.registry import Registry
from center.rollout import State
from protocol.errors import BadInputError
from protocol.release import WHOLE_QUEUE

GOOD, BETTER, BAD = b"good model", b"better model", b"bad model"
AT_ONCE = "[rollout]\nbake_seconds = 0"


@pytest.fixture
def office(town):
    """A federation with rings, and its books open."""
    town.set(AT_ONCE)
    town.admit(*(f"site-{number}" for number in range(8)))
    with closing(Registry(town.folder / "registry.db")) as registry:
        yield Office(town, registry)


class Office:
    def __init__(self, town, registry):
        self.town, self.registry = town, registry
        self.orders = Orders(directory=town.folder, settings=town.settings, registry=registry)

    def propose(self, model, *, waived="a test"):
        folder = self.town.build({"recommend/model.onnx": model})
        version = int(folder.name.partition("-")[2])
        done = releasing.propose(
            version,
            folder,
            directory=self.town.folder,
            settings=self.town.settings,
            registry=self.registry,
            figures={"campaign": "spring", "rounds": 3},
            evaluation={"ndcg": 0.5},
            waived=waived,
        )
        assert done["version"] == version
        return version
