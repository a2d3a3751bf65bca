"""`hanse-edge key`: who may ask the query service for what, and how often."""

import json
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="API keys of the query service: make, list, revoke.")

Directory = Annotated[Path, typer.Option("--dir", help="The edge's own folder.", envvar="HANSE_EDGE_DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="query, ingest or admin, once for each; query and ingest by default."),
]
_HERE = Path("edge-data")
_BURST_SECONDS = 2


@app.command()
def new(
    label: Annotated[str, typer.Argument(help="The program that the key is for.")],
    directory: Directory = _HERE,
    scope: Scopes = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; no limit by default.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once; what comes in 2 s by default.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never by default.")] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Keep it here for hanse-edge query and its like.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make one more API key and show it, once. A running edge takes it within a second."""
    from edge import asking, settings

    settings.load(directory)
    now = datetime.now(UTC)
    expires = now + timedelta(days=days) if days else None
    secret = make(directory, label, scope or ["query", "ingest"], rate=rate, burst=burst, created=now, expires=expires)
    if operator:
        asking.keep_key(directory, secret)
    _say({"label": label, "api_key": secret}, as_json=as_json, text=f"API key for {label}, shown once: {secret}")


@app.command(name="list")
def list_(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """What each key is for. The keys themselves are known to nobody but their bearers."""
    from rich.console import Console
    from rich.table import Table

    from edge import settings
    from edge.api.keys import FILE, KeyFile

    settings.load(directory)
    keys = KeyFile(directory / FILE).read()
    if as_json:
        lines = [json.loads(key.to_line()) for key in keys]
        print(json.dumps([{name: value for name, value in line.items() if name != "sha256"} for line in lines]))
        return
    table = Table("label", "for", "requests/s", "made", "expires", box=None)
    for key in keys:
        rate = f"{key.rate:g}, {key.burst} at once" if key.rate is not None else "no limit"
        table.add_row(
            key.label, ", ".join(sorted(key.scopes)), rate, _day(key.created, "?"), _day(key.expires, "never")
        )
    Console().print(table)


@app.command()
def revoke(
    label: Annotated[str, typer.Argument(help="As hanse-edge key list says it.")],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """Take a key back. A running edge refuses it within a second."""
    from edge import settings
    from edge.api.keys import FILE, KeyFile

    settings.load(directory)
    count = KeyFile(directory / FILE).revoke(label)
    _write_down(directory, "key revoked", label=label)
    _say({"label": label, "revoked": count}, as_json=as_json, text=f"{label} is revoked")


def make(
    directory: Path,
    label: str,
    scopes: list[str],
    *,
    created: datetime,
    rate: float | None = None,
    burst: int | None = None,
    expires: datetime | None = None,
    instead: bool = False,
) -> str:
    """Draw an API key; only its hash is kept.

    Args:
        instead: in the place of any that has its label.

    Raises:
        BadInputError: a scope is none, or the label is taken.
    """
    from edge.api.keys import FILE, ApiKey, KeyFile, digest, new_secret, scopes_of

    secret = new_secret()
    key = ApiKey(
        digest=digest(secret),
        label=" ".join(label.split()),
        scopes=scopes_of(scopes),
        created=created,
        expires=expires,
        rate=rate,
        burst=burst if burst is not None else _burst(rate),
    )
    KeyFile(directory / FILE).add(key, instead=instead)
    until = {} if expires is None else {"expires": _day(expires, "")}
    _write_down(directory, "key made", label=key.label, scopes=sorted(key.scopes), **until)
    return secret


def operators(directory: Path) -> str:
    """The first key of a new edge, for everything, kept beside for the commands of this machine.

    Whoever sets the edge up again after a crash gets another in its place.
    """
    from edge import asking

    secret = make(directory, "first", ["query", "ingest", "admin"], created=datetime.now(UTC), instead=True)
    asking.keep_key(directory, secret)
    return secret


def _write_down(directory: Path, kind: str, **facts: Any) -> None:
    """Into the audit log: who may ask is as much of a change as what answers."""
    from edge.diary import Diary

    diary = Diary(directory)
    try:
        diary.note(kind, **facts)
    finally:
        diary.close()


def _burst(rate: float | None) -> int:
    return max(1, round(rate * _BURST_SECONDS)) if rate is not None and isfinite(rate) else 1


def _day(when: datetime | None, otherwise: str) -> str:
    return f"{when:%Y-%m-%d}" if when else otherwise


def _say(value: Any, *, as_json: bool, text: str) -> None:
    print(json.dumps(value) if as_json else text)
