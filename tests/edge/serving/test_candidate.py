"""The candidate that lies on an edge's disk, as its learner finds it when the center asks."""

import shutil

import pytest

from edge.releases.assembly import measure
from edge.releases.evaluating import evaluate
from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.rounds.learner import _loading
from protocol.identity import FederationId
from protocol.release import Offer, Place


@pytest.fixture
def installer(tmp_path, catalogue_directory, make_bundle):
    """An edge with catalogue 1 and candidate 3, and nothing committed."""
    home = tmp_path / "edge"

    def lay(source, place, kind, version):
        directory = shutil.copytree(source, home / place / str(version))
        files = measure(directory)
        size = sum(file.size for file in files.values())
        offer = Offer(place=kind, version=version, sha256="0" * 64, bytes=size, evaluation={})
        Installed(directory=directory, offer=offer, files=files).save()

    lay(catalogue_directory, "catalogue", Place.CATALOGUE, 1)
    lay(make_bundle(3), "candidate", Place.CANDIDATE, 3)
    return Installer(home, federation=FederationId("hanse"), edge_version="0.1.0")


def test_the_asked_candidate_is_loaded_by_the_code_that_serves_and_measured(installer, stocked, buy) -> None:
    stocked.add_events([buy("ada", "i3", day=60)])
    load = _loading(installer, installer.candidate(), number=3)
    sums = evaluate(stocked, load(), None, draw=3)
    assert sums["all"][0] == 1  # ada; nobody else had a shared item before another
    assert sums["all"][1] > 0


def test_another_candidate_than_the_asked_one_is_none(installer) -> None:
    assert _loading(installer, installer.candidate(), number=4) is None
    assert _loading(installer, installer.bundle()) is None
