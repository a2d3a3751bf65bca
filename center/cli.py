"""`hanse-center`: parses, makes one call, and turns an error into one line and exit code 1."""

import json
import logging
import secrets
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import click
import structlog
import typer

from center import cli_keys, cli_rollout
from protocol.errors import FederationError

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The aggregation server of a federation: admits sites, trains, releases.",
)

app.add_typer(cli_keys.app, name="keys")
cli_rollout.hook(app)

Directory = Annotated[Path, typer.Option("--dir", help="The center's folder.", envvar="HANSE_CENTER_DIR")]
Offline = Annotated[
    Path | None, typer.Option("--offline", help="Where the offline keys lie; DIR/offline unless you moved them.")
]
ApproveWith = Annotated[
    list[Path] | None,
    typer.Option("--approve-with", help="Private key of a person who approves, once for each of them."),
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
    root_keys: Annotated[int, typer.Option(min=1, help="Offline keys of the root of trust, to be kept apart.")] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, help="How many of them must sign a new root.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Make a new federation: keys, certificates, first root of trust."""
    from center import founding
    from center.registry import Registry
    from protocol.identity import federation_id

    addresses = founding.Addresses(
        host=host, gateway_port=gateway_port, superlink_port=superlink_port, broker_port=broker_port
    )
    founding.found(
        directory,
        federation=federation_id(federation),
        addresses=addresses,
        root_keys=root_keys,
        root_threshold=root_threshold,
        now=datetime.now(UTC),
    )
    with closing(Registry(directory / "registry.db")) as registry:
        registry.record("founded", federation=federation, root_keys=root_keys, root_threshold=root_threshold)
    _say(
        {"federation": federation, "directory": str(directory)},
        as_json=as_json,
        text=f"Federation {federation} is founded in {directory}.\n"
        f"Move {directory / 'offline'} off this machine: its keys sign the roster and the root of trust.\n"
        f"Keep the {root_keys} root keys apart: {root_threshold} of them together say whom everybody trusts.\n"
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
    from center.sites import inviting

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
    from center import settings
    from center.sites import admission, membership

    loaded = settings.load(directory)
    roster, policy = membership.admit(
        directory,
        loaded,
        offline=offline,
        groups=admission.read_groups(groups) if groups else None,
        now=datetime.now(UTC),
    )
    names = [member.edge for member in roster.members]
    text = (
        f"Roster {roster.version} admits {len(names)} sites in {len(roster.groups)} "
        f"group{'s' if len(roster.groups) > 1 else ''}: {', '.join(names)}"
    )
    if policy is not None:
        text += f"\nA release goes first to {', '.join(policy.canary)}; hanse-center rings changes that."
    _say(
        {
            "roster": roster.version,
            "sites": names,
            "groups": [list(group) for group in roster.groups],
            "canary": list(policy.canary) if policy else [],
            "early": list(policy.early) if policy else [],
        },
        as_json=as_json,
        text=text,
    )


@app.command()
def remove(
    site: str,
    directory: Directory = _HERE,
    offline: Offline = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Put a site out: sign a roster without it, end its certificates, and change the content key."""
    from center import settings
    from center.keys import load_signing_key
    from center.sites import membership
    from protocol.identity import edge_id

    loaded = settings.load(directory)
    with _busy("signing the roster, encrypting everything anew", quiet=as_json):
        roster, key = membership.remove(
            directory,
            loaded,
            edge_id(site),
            offline=offline,
            approvals=[load_signing_key(path) for path in approve_with or ()],
            now=datetime.now(UTC),
        )
    _say(
        {"roster": roster.version, "removed": site, "content_key": key},
        as_json=as_json,
        text=f"Roster {roster.version} is without {site}, and so is content key {key}",
    )


@app.command()
def rings(
    directory: Directory = _HERE,
    canary: Annotated[str | None, typer.Option(help="Sites that take a release first, with commas between.")] = None,
    early: Annotated[str | None, typer.Option(help="Sites that take it next, with commas between.")] = None,
    offline: Offline = None,
    as_json: AsJson = False,
) -> None:
    """Show which sites take a release first, or sign who they are; a ring that is not named stays as it is."""
    from center import settings
    from center.sites import membership
    from protocol.identity import edge_id

    loaded = settings.load(directory)
    policy = membership.rings_in_force(directory, loaded)
    if canary is not None or early is not None:
        chosen = [
            old if names is None else [edge_id(name.strip()) for name in names.split(",") if name.strip()]
            for names, old in ((canary, policy.canary), (early, policy.early))
        ]
        policy = membership.choose_rings(
            directory, loaded, canary=chosen[0], early=chosen[1], offline=offline, now=datetime.now(UTC)
        )
    _say(
        {"policy": policy.number, "canary": list(policy.canary), "early": list(policy.early)},
        as_json=as_json,
        text=f"canary: {', '.join(policy.canary) or 'nobody'}\nearly: {', '.join(policy.early) or 'nobody'}\n"
        "all others: ring all",
    )


@app.command()
def collect(
    directory: Directory = _HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take off broker and disk what nobody needs any more; `serve` does it every hour."""
    from center import settings
    from center.keys import CenterKeys
    from center.mqtt import collecting, road

    loaded, keys, now = settings.load(directory), CenterKeys.load(directory), datetime.now(UTC)
    with road.connected(directory, loaded, keys) as voice:
        garbage = (collecting.look if dry_run else collecting.collect)(voice, directory, loaded, now=now)
    said = garbage.to_json()
    names = [*said["targets"], *said["folders"]]
    _say(
        said,
        as_json=as_json,
        text=f"{said['messages']} messages of {said['bytes']} bytes {'would go' if dry_run else 'are gone'}"
        + (f", and {', '.join(names)}" if names else ""),
    )


@app.command()
def catalogue(
    file: Annotated[Path, typer.Argument(help="Table with column item and, if you have them, title, category, brand.")],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """Sign and publish the shared catalogue."""
    from center import settings
    from center.releases import releasing

    with _busy("building, signing and publishing the catalogue", quiet=as_json):
        done = releasing.publish_catalogue(file, directory=directory, settings=settings.load(directory))
    _say(done, as_json=as_json, text=f"Catalogue {done['version']}: {done['items']} items, {done['bytes']} bytes sent")


@app.command()
def broker(
    directory: Directory = _HERE,
    embedded: Annotated[bool, typer.Option(help="Use the embedded broker even where Mosquitto is installed.")] = False,
) -> None:
    """Run this federation's MQTT broker in the foreground: Mosquitto where it is installed, else the embedded one."""
    from center import settings
    from center.mqtt import road
    from center.mqtt.broker import Broker, Kind, mosquitto_path
    from center.sites import upkeep

    loaded = settings.load(directory)
    plan = road.broker_plan(directory, loaded)
    upkeep.refresh(directory, loaded, now=datetime.now(UTC))
    kind: Kind = "embedded" if embedded or mosquitto_path() is None else "mosquitto"
    running = Broker.start(plan, kind=kind)
    print(f"{kind} broker on {plan.host}:{plan.port}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        running.wait()
    running.stop()  # and wait until it has stored what it keeps


@app.command(name="broker-config")
def broker_config(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")],
    directory: Directory = _HERE,
    at: Annotated[
        Path | None, typer.Option("--at", help="Where the folder will lie on the broker's machine, if that is another.")
    ] = None,
    plugin: Annotated[
        str | None, typer.Option(help="mosquitto_dynamic_security.so on that machine; found here if it is this one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration, rules and papers of a Mosquitto that you run yourself; serve keeps them up to date."""
    from center import settings
    from center.mqtt import broker_export
    from center.sites import upkeep

    loaded, now = settings.load(directory), datetime.now(UTC)
    plan = broker_export.export(directory, loaded, folder, placed=at, plugin=plugin, now=now)
    upkeep.refresh(directory, loaded, now=now)
    text = f"Mosquitto's configuration is {plan.folder / 'mosquitto.conf'}; its account must own the folder.\n"
    text += f"When the folder changes, let Mosquitto read it again: kill -HUP $(cat {plan.folder / 'broker.pid'})"
    if not plan.plugin:
        text += "\nWithout its dynamic security plugin a removed site is struck dumb, but its connection stays open."
    _say({"folder": str(folder), "at": str(plan.folder), "plugin": plan.plugin}, as_json=as_json, text=text)


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
    completed: Annotated[
        int | None, typer.Option("--round", min=0, help="After so many training rounds; the newest weights by default.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the release is with everybody, or back.")] = False,
    waived: Annotated[
        str, typer.Option("--waive-gate", help="Why the sites need not measure it first; noted in the audit log.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Export, quantize and check the weights of a campaign, and sign them as a candidate; `serve` takes it further."""
    from center import settings
    from center.releases import releasing

    with _busy("exporting, checking, signing and publishing", quiet=as_json) as say:
        loaded = settings.load(directory)
        done = releasing.release(campaign, directory=directory, settings=loaded, completed=completed, waived=waived)
        if wait:
            done["state"] = cli_rollout.wait_for_end(directory, done["version"], say=say).state.value
    _say(
        done,
        as_json=as_json,
        text=f"Release {done['version']} is {done['state']}: {done['served_bytes']} bytes, "
        f"top-10 overlap {done['top10_overlap']:.4f}",
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
    """Issue new certificates for gateway, SuperLink, broker and the center itself; what runs takes them up."""
    from center import settings
    from center.mqtt import broker_export
    from center.sites import renewing, upkeep

    loaded, now = settings.load(directory), datetime.now(UTC)
    renewing.renew(directory, loaded, now=now)
    broker_export.renew(directory, loaded, now=now)
    untold = [trouble.line() for trouble in upkeep.refresh(directory, loaded, now=now)]
    text = "New certificates lie in keys/; what runs takes them up"
    _say({"renewed": True, "untold": untold}, as_json=as_json, text=text)


@app.command()
def nginx(directory: Directory = _HERE) -> None:
    """Print an nginx configuration that does what the built-in gateway does, without enrolment."""
    from center import settings
    from center.sites.gateway import nginx_configuration

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
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever it is at the time
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # The default one prints local variables, and with them who asked for what.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
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
