"""`hanse-center`: parses, makes one call, and turns an error into one line and exit code 1."""

import json
import logging
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import click
import structlog
import typer

from protocol.errors import BadInputError, FederationError

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The aggregation server of a federation: admits sites, trains, releases.",
)

Directory = Annotated[Path, typer.Option("--dir", help="The center's folder.", envvar="HANSE_CENTER_DIR")]
Offline = Annotated[
    Path | None, typer.Option("--offline", help="Where the offline keys lie; DIR/offline unless you moved them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Port = Annotated[int, typer.Option(min=1, max=65_535)]
_HERE = Path("center-data")


@app.command()
def init(
    federation: Annotated[str, typer.Argument(help="Name of the federation: a-z, 0-9 and '-'.")],
    directory: Directory = _HERE,
    host: Annotated[str, typer.Option(help="Address of gateway and broker, as sites will reach it.")] = "127.0.0.1",
    gateway_port: Port = 8443,
    superlink_port: Port = 8500,
    broker_port: Port = 8883,
    as_json: AsJson = False,
) -> None:
    """Make a new federation: keys, certificates, first root of trust."""
    from center import founding
    from protocol.identity import federation_id

    addresses = founding.Addresses(
        host=host, gateway_port=gateway_port, superlink_port=superlink_port, broker_port=broker_port
    )
    founding.found(directory, federation=federation_id(federation), addresses=addresses, now=datetime.now(UTC))
    _say(
        {"federation": federation, "directory": str(directory)},
        as_json=as_json,
        text=f"Federation {federation} is founded in {directory}.\n"
        f"Move {directory / 'offline'} off this machine: its keys sign the roster and the root of trust.\n"
        f"Next: hanse-center broker, hanse-center serve, hanse-center enroll SITE",
    )


@app.command()
def enroll(
    site: Annotated[str, typer.Argument(help="Name of the site: a-z, 0-9 and '-'.")],
    directory: Directory = _HERE,
    hours: Annotated[int, typer.Option(min=1, help="How long the token works.")] = 72,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token for a site; hand it over outside the network."""
    from center import inviting

    token = inviting.invite(directory, site, life=timedelta(hours=hours), now=datetime.now(UTC))
    _say(
        {"site": site, "token": token},
        as_json=as_json,
        text=f"{token}\n\nOn the site, once and within {hours} hours: hanse-edge join TOKEN",
    )


@app.command()
def admit(
    directory: Directory = _HERE,
    offline: Offline = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="TOML file of groups whose sums the center sees, to trim outliers; an empty one ends that."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign the roster of all sites that have joined, and tell everybody."""
    from center import admission, road, settings
    from center.keys import OFFLINE, CenterKeys
    from center.registry import Registry
    from protocol.identity import federation_id

    loaded = settings.load(directory)
    registry = Registry(directory / "registry.db")
    roster = admission.sign_roster(
        directory,
        federation=federation_id(loaded.federation),
        registry=registry,
        offline=offline or directory / OFFLINE,
        groups=admission.read_groups(groups) if groups else None,
    )
    with road.connected(directory, loaded, CenterKeys.load(directory)) as voice:
        road.publish_roster(voice, roster, (directory / admission.ROSTER_FILE).read_bytes())
    names = [member.edge for member in roster.members]
    _say(
        {"roster": roster.version, "sites": names, "groups": [list(group) for group in roster.groups]},
        as_json=as_json,
        text=f"Roster {roster.version} admits {len(names)} sites in {len(roster.groups)} "
        f"group{'s' if len(roster.groups) > 1 else ''}: {', '.join(names)}",
    )


@app.command()
def remove(site: str, directory: Directory = _HERE, offline: Offline = None, as_json: AsJson = False) -> None:
    """Remove a site: sign a roster without it and take its content key off the broker."""
    from center import admission, road, settings
    from center.keys import OFFLINE, CenterKeys
    from center.registry import Registry
    from protocol.identity import edge_id, federation_id

    loaded = settings.load(directory)
    registry = Registry(directory / "registry.db")
    edge = edge_id(site)
    if edge not in {member.edge for member in registry.sites()}:
        raise BadInputError(f"no site {edge} has joined", advice="hanse-center status lists them")
    roster = admission.sign_roster(
        directory,
        federation=federation_id(loaded.federation),
        registry=registry,
        offline=offline or directory / OFFLINE,
        without=edge,
    )
    with road.connected(directory, loaded, CenterKeys.load(directory)) as voice:
        road.publish_roster(voice, roster, (directory / admission.ROSTER_FILE).read_bytes())
        voice.remove_edge(edge)
    registry.remove_site(edge)  # last, so that a command that was interrupted can be given again
    _say(
        {"roster": roster.version, "removed": site}, as_json=as_json, text=f"Roster {roster.version} is without {site}"
    )


@app.command()
def catalogue(
    file: Annotated[Path, typer.Argument(help="Table with column item and, if you have them, title, category, brand.")],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """Sign and publish the shared catalogue."""
    from center import releasing, settings

    with _busy("building, signing and publishing the catalogue", quiet=as_json):
        done = releasing.publish_catalogue(file, directory=directory, settings=settings.load(directory))
    _say(done, as_json=as_json, text=f"Catalogue {done['version']}: {done['items']} items, {done['bytes']} bytes sent")


@app.command()
def broker(
    directory: Directory = _HERE,
    embedded: Annotated[bool, typer.Option(help="Use the embedded broker even where Mosquitto is installed.")] = False,
) -> None:
    """Run this federation's MQTT broker in the foreground: Mosquitto where it is installed, else the embedded one."""
    from center import road, settings
    from center.broker import Broker, Kind, mosquitto_path

    plan = road.broker_plan(directory, settings.load(directory))
    kind: Kind = "embedded" if embedded or mosquitto_path() is None else "mosquitto"
    running = Broker.start(plan, kind=kind)
    print(f"{kind} broker on {plan.host}:{plan.port}", flush=True)
    running.wait()


@app.command()
def serve(directory: Directory = _HERE) -> None:
    """Run the center: gateway, SuperLink, campaigns. Ctrl-C ends all of it."""
    from center import service, settings

    service.serve(directory, settings.load(directory))


@app.command()
def train(
    directory: Directory = _HERE,
    rounds: Annotated[int, typer.Option(min=1, help="Training rounds.")] = 8,
    wait: Annotated[bool, typer.Option(help="Wait until the campaign is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the running center for a campaign of so many rounds."""
    from center import settings
    from center.registry import Registry

    settings.load(directory)
    registry = Registry(directory / "registry.db")
    campaign = f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(2)}"
    registry.ask_campaign(campaign, submodel="recommend", rounds=rounds, now_ms=time.time_ns() // 1_000_000)
    row = registry.campaign(campaign)
    with _busy(f"campaign {campaign}", quiet=as_json or not wait) as say:
        while wait and row.state in {"waiting", "running"}:
            time.sleep(0.5)
            row = registry.campaign(campaign)
            summed = sum(r.outcome == "summed" and r.purpose == "train" for r in registry.rounds(campaign))
            say(f"campaign {campaign}: {summed} of {rounds} rounds")
    if row.state == "failed":
        raise FederationError(f"campaign {campaign} failed: {row.why}")
    _say({"campaign": campaign, "state": row.state}, as_json=as_json, text=f"Campaign {campaign} is {row.state}")


@app.command()
def release(
    directory: Directory = _HERE,
    campaign: Annotated[
        str | None, typer.Option(help="Whose weights; the newest finished campaign's by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export, quantize, check, sign and publish the weights of a campaign."""
    from center import releasing, settings

    with _busy("exporting, checking, signing and publishing", quiet=as_json):
        done = releasing.release(campaign, directory=directory, settings=settings.load(directory))
    _say(
        done,
        as_json=as_json,
        text=f"Release {done['version']}: {done['served_bytes']} bytes, top-10 overlap {done['top10_overlap']:.4f}",
    )


@app.command()
def status(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Sites, campaigns, rounds and releases, and whether the center serves."""
    from rich.console import Console

    from center import overview, settings

    seen = overview.look(directory, settings.load(directory))
    if as_json:
        print(json.dumps(seen))
    else:
        overview.show(seen, Console())


@app.command()
def renew(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Issue a new certificate for gateway, SuperLink and broker; they read it at their next start."""
    from center import founding, settings
    from center.keys import CenterKeys

    loaded = settings.load(directory)
    keys = CenterKeys.load(directory)
    founding.issue_server_certificate(
        directory, host=loaded.gateway.host, ca=keys.authority, ca_key=keys.authority_key, now=datetime.now(UTC)
    )
    _say(
        {"renewed": True}, as_json=as_json, text="A new certificate lies in keys/tls.crt; start broker and center again"
    )


@app.command()
def nginx(directory: Directory = _HERE) -> None:
    """Print an nginx configuration that does what the built-in gateway does, without enrolment."""
    from center import settings
    from center.gateway import nginx_configuration

    loaded = settings.load(directory)
    print(
        nginx_configuration(
            server_name=loaded.gateway.host,
            port=loaded.gateway.port,
            certificate=(directory / "keys" / "tls.crt").resolve(),
            key=(directory / "keys" / "tls.key").resolve(),
            superlink_url=f"https://127.0.0.1:{loaded.superlink.port}",
            ca_certificate=(directory / "trust" / "ca.crt").resolve(),
        )
    )


@app.command()
def doctor(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Look for what is wrong, and say what mends it."""
    from rich.console import Console
    from rich.table import Table

    from center import doctor as examination
    from center import settings

    findings = list(examination.examine(directory, settings.load(directory), now=datetime.now(UTC)))
    if as_json:
        print(json.dumps([{"check": f.check, "problem": f.problem, "fix": f.fix} for f in findings]))
    else:
        table = Table("check", "problem", "fix")
        for finding in findings:
            table.add_row(finding.check, finding.problem or "none", finding.fix)
        Console().print(table)
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


@app.callback()
def about() -> None:
    """The center of a federation."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def _busy(what: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A moving sign on standard error for whoever waits at a terminal."""
    from rich.console import Console

    with Console(stderr=True, quiet=quiet).status(what) as sign:
        yield sign.update


def _say(value: Any, *, as_json: bool, text: str) -> None:
    print(json.dumps(value) if as_json else text)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that is one line on standard error.
    """
    try:
        result = app(args=argv, prog_name="hanse-center", standalone_mode=False)
    except FederationError as error:
        print(f"center: {error.line()}", file=sys.stderr)
        return 1
    except click.ClickException as error:
        print(f"center: {error.format_message()} (hanse-center --help)", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except sqlite3.Error as error:
        print(f"center: a database cannot be used: {error} (hanse-center doctor)", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"center: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if result == _INTERRUPTED:  # typer turns Ctrl-C into this result
        print("center: interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
