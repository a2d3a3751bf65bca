"""`hanse-center rollout`, `rollback`, `trace`, `audit`: what an operator does about releases that are on their way."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import BadInputError, FederationError

if TYPE_CHECKING:
    from center.mqtt.publishing import Publisher
    from center.releases.orders import Orders
    from center.releases.rollout import Rollout

app = typer.Typer(no_args_is_help=True, help="A release's way through the rings: look, pause, resume, abort, approve.")

Directory = Annotated[Path, typer.Option("--dir", help="The center's folder.", envvar="HANSE_CENTER_DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Key = Annotated[list[Path], typer.Option("--key", help="Private key of a person who approves, once for each of them.")]
ApproveWith = Annotated[
    list[Path] | None,
    typer.Option("--approve-with", help="Private key of a person who approves, once for each of them."),
]
_HERE = Path("center-data")
_LOOK_SECONDS = 0.5


@app.command()
def status(
    directory: Directory = _HERE,
    every: Annotated[bool, typer.Option("--all", help="All releases, not only the newest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where the newest release stands, stage by stage."""
    from rich.console import Console

    from center.releases.rollout_view import describe, show

    with _orders(directory) as orders:
        found = orders.rollouts.every()
    rows = [describe(rollout) for rollout in (found if every else found[:1])]
    if as_json:
        print(json.dumps(rows if every else (rows[0] if rows else None)))
    elif rows:
        show(rows, Console())
    else:
        print("Nothing has been released yet")


@app.command()
def pause(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Offer the release to nobody more for now; who has it keeps it."""
    with _orders(directory) as orders:
        _tell(orders.pause(), as_json=as_json)


@app.command()
def resume(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Go on where the release stood; bake time and patience begin anew."""
    with _orders(directory) as orders:
        _tell(orders.resume(), as_json=as_json)


@app.command()
def abort(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """End the release: who has it goes back to the one before."""
    with _orders(directory) as orders, _voice(orders) as voice:
        _tell(orders.abort(voice), as_json=as_json)


@app.command()
def approve(key: Key, directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Sign, with a second key, what waits for approval."""
    from center.keys import load_signing_key

    with _orders(directory) as orders, _voice(orders) as voice:
        _tell(orders.approve([load_signing_key(path) for path in key], voice), as_json=as_json)


def rollback(
    directory: Directory = _HERE,
    to: Annotated[int | None, typer.Option(help="Which release; the one before by default.")] = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Give everybody who was offered the newest release an older one, at once; `serve` need not run."""
    from center.keys import load_signing_key

    with _orders(directory) as orders, _voice(orders) as voice:
        keys = [load_signing_key(path) for path in approve_with or ()]
        _tell(orders.roll_back(voice, to=to, approvals=keys), as_json=as_json)


def trace(
    what: Annotated[
        str, typer.Argument(help="A rec_id, a bundle's digest, a release's number, a campaign, a site, or round/12.")
    ],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """From an answer to its release, bundle, rounds and cohorts, and back."""
    from rich.console import Console

    from center import tracing
    from center.releases.rollout_view import show_trace

    with _orders(directory) as orders:
        found = tracing.trace(what, registry=orders.registry)
    if as_json:
        print(json.dumps(found))
    else:
        show_trace(found, Console())


def audit(
    directory: Directory = _HERE,
    head: Annotated[
        str | None, typer.Option(help="Digest of an entry that was noted elsewhere, on an edge say; it must be here.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Show so many of the newest entries.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Check the chain of the audit log, and list its newest entries."""
    from protocol.audit import check_chain

    with _orders(directory) as orders:
        entries = orders.registry.audit_log()
    newest = check_chain(entries, head=head.lower() if head else None)
    if as_json:
        listed = [
            {"seq": e.seq, "time_ms": e.time_ms, "kind": e.kind, "facts": dict(e.facts), "digest": e.digest}
            for e in entries[-last:]
        ]
        print(json.dumps({"entries": len(entries), "head": newest, "newest": listed}))
        return
    for entry in entries[-last:]:
        facts = ", ".join(f"{name} {value}" for name, value in entry.facts.items() if value != "")
        print(f"{entry.seq:6} {_moment(entry.time_ms)} {entry.kind}: {facts}")
    print(f"{len(entries)} entries, each follows from the one before; head {newest}")


def wait_for_end(directory: Path, version: int, *, say: Callable[[str], None]) -> "Rollout":
    """Follow a rollout to its end.

    Raises:
        BadInputError: no center serves here that would move it.
        FederationError: it was refused, reverted, aborted or paused; says why.
    """
    from center.releases.rollout import State
    from center.service_lock import served

    with _orders(directory) as orders:
        while True:
            rollout = orders.rollouts.get(version)
            if rollout.state is State.FINISHED:
                return rollout
            if not rollout.active or rollout.state is State.PAUSED:
                raise FederationError(f"release {version} is {rollout.state}: {rollout.why}")
            if not served(directory):
                raise BadInputError(
                    f"release {version} is {rollout.state}, but no center serves in {directory}",
                    advice="hanse-center serve takes it on",
                )
            place = f", ring {rollout.reached.place}" if rollout.reached else ""
            say(f"release {version}: {rollout.state}{place} {rollout.why}")
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _orders(directory: Path) -> "Iterator[Orders]":
    from center import settings
    from center.registry import Registry
    from center.releases.orders import Orders

    loaded = settings.load(directory)
    with closing(Registry(directory / "registry.db")) as registry:
        yield Orders(directory=directory, settings=loaded, registry=registry)


@contextmanager
def _voice(orders: "Orders") -> "Iterator[Callable[[], Publisher]]":
    """Connects when it is first asked for: an order that is refused needs no broker."""
    from contextlib import ExitStack

    from center.keys import CenterKeys
    from center.mqtt import road

    with ExitStack() as parts:
        yield lambda: parts.enter_context(
            road.connected(orders.directory, orders.settings, CenterKeys.load(orders.directory))
        )


def _tell(rollout: "Rollout", *, as_json: bool) -> None:
    from center.releases.rollout_view import describe

    if as_json:
        print(json.dumps(describe(rollout)))
        return
    line = f"Release {rollout.version} is {rollout.state}"
    if rollout.successor:
        line += f"; release {rollout.successor} names the files of release {rollout.previous} again"
    elif rollout.goes_back and rollout.reached and rollout.signed:
        line += "; it was the first, so who has it keeps it, and nobody more is offered it"
    print(line)


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def hook(center: typer.Typer) -> None:
    """Add these commands to `hanse-center`."""
    center.add_typer(app, name="rollout")
    for command in (rollback, trace, audit):
        center.command()(command)
