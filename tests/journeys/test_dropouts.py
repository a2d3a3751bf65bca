"""Kill -9 of two of eight edges in a running campaign, one before its upload and one after: the round completes."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import structlog

import center.cli
import edge.cli
from simulation import datasets
from simulation.federation import Federation
from simulation.processes import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(400)]

SITES, MIN_COHORT = 8, 5
EAGER = {"training": {"niceness": 0}}  # or learners wait for whatever else this machine does
COMMANDS = {"hanse-center": center.cli.main, "hanse-edge": edge.cli.main}


class Swift(Federation):
    """Its commands run in this process: 40 starts of Python less. What serves are processes as ever."""

    def command(self, command: str, *words: str, at: Path | None = None) -> str:
        said = io.StringIO()
        with redirect_stdout(said):
            code = COMMANDS[command]([*words, "--dir", str(at or self.center)])
        structlog.reset_defaults()  # a command logs to the standard error of its test
        assert code == 0, said.getvalue()
        return said.getvalue()


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    data = datasets.complete_journey(SITES, fraction=0.03)
    with Swift.fresh(tmp_path_factory.mktemp("dropouts") / "federation", federation="hanse-dropouts") as walk:
        walk.found(
            settings={
                "rounds": {"min_cohort": MIN_COHORT, "deadline_seconds": 120, "gather_seconds": 30, "step_seconds": 30},
                "model": {"min_support": 3, "embedding_size": 32, "history_length": 20, "negatives": 64, "epochs": 6},
            }
        )
        for part in data.sites:
            walk.join(part.name, min_cohort=MIN_COHORT, settings=EAGER)
        walk.command("hanse-center", "admit")
        walk.command("hanse-center", "catalogue", str(data.write_catalogue(walk.directory)))
        for site, part in zip(walk.sites, data.sites, strict=True):
            events, items = data.write_site(part, walk.directory / "export" / site.name)
            walk.command("hanse-edge", "import", "items", str(items), "--json", at=site.directory)
            walk.command("hanse-edge", "import", "events", str(events), "--json", at=site.directory)
        walk.serve_all()
        yield walk


def _answer(federation: Federation, site: int, number: int) -> Path:
    return federation.sites[site].directory / "answers" / f"{number}.bin"


def _training_round(federation: Federation) -> int | None:
    campaign = federation.status()["campaign"]
    rounds = [row["round"] for row in campaign["rounds"] if row["purpose"] == "train"] if campaign else []
    return rounds[0] if rounds else None


def _uploaded(federation: Federation, number: int) -> int | None:
    """An edge that has sent its masked update: on disk comes before on the way."""
    for site in range(1, SITES):
        log = federation.directory / "logs" / f"{federation.sites[site].name}.log"
        text = log.read_text("utf-8", errors="replace")
        if _answer(federation, site, number).exists() and text.rfind("reply sent") > text.rfind("trained"):
            return site
    return None


def _kill(federation: Federation, site: int) -> None:
    federation.children.pop(federation.sites[site].name).kill()


def test_the_round_completes_without_two_of_eight(federation) -> None:
    federation.command("hanse-center", "train", "--rounds", "2")
    everybody = list(federation.children.values())
    wait_until(lambda: _training_round(federation) is not None, what="training", seconds=120, children=everybody)
    number = _training_round(federation)
    assert number is not None
    _kill(federation, 0)
    assert not _answer(federation, 0, number).exists()  # before its upload
    wait_until(lambda: _uploaded(federation, number) is not None, what="uploads", seconds=90)
    uploaded = _uploaded(federation, number)
    assert uploaded is not None
    _kill(federation, uploaded)  # after its upload
    wait_until(
        lambda: federation.status()["campaign"]["state"] == "finished",
        what="the campaign",
        seconds=200,
        children=list(federation.children.values()),
    )
    campaign = federation.status()["campaign"]
    assert {row["outcome"] for row in campaign["rounds"]} == {"summed"}
    popularity, first, second = campaign["rounds"]
    assert popularity["survivors"] >= MIN_COHORT  # whoever was up in time
    assert (first["round"], first["survivors"]) == (number, SITES - 1)
    assert second["survivors"] == SITES - 2
