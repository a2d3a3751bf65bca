"""`hanse-center broker-config DIR`: everything that a Mosquitto of the operator's own needs, in one folder.

It gets a key of its own: whoever runs the broker cannot play the gateway.
"""

from datetime import datetime
from pathlib import Path

from center import durable
from center.keys import new_tls_key
from center.mqtt.broker_config import BrokerPlan, find_plugin, write_configuration
from center.settings import CenterSettings
from center.sites import renewing
from protocol.errors import BadInputError
from protocol.identity import federation_id
from protocol.renewal import is_due

_BOOK = Path("broker") / "exported"
_PLAN = "plan.json"
_COPIED = {"ca.crt": Path("trust") / "ca.crt", "ca.crl": renewing.REVOKED}


def export(
    directory: Path, settings: CenterSettings, folder: Path, *, placed: Path | None, plugin: str | None, now: datetime
) -> BrokerPlan:
    """Write a folder and remember it; `freshen` and the access rules keep it up to date from then on.

    Args:
        placed: where the folder will lie on the broker's machine, if that is another.
        plugin: Mosquitto's dynamic security plugin there; None: as found on this machine.

    Raises:
        BadInputError: the folder cannot be written, or a key of the center is missing.
    """
    folder = folder.resolve()
    there = placed or folder
    plan = BrokerPlan(
        federation=federation_id(settings.federation),
        folder=there,
        host="",
        port=settings.broker.port,
        authority=there / "ca.crt",
        certificate=there / "broker.crt",
        key=there / "broker.key",
        revoked=there / "ca.crl",
        plugin=find_plugin() if plugin is None else plugin,
        largest_message=settings.broker.max_message_bytes,
    )
    try:
        if not (folder / "broker.key").exists():
            new_tls_key(folder / "broker.key")
        _issue(directory, settings, folder, now=now)
        durable.write(folder / _PLAN, plan.to_json())
        write_configuration(plan, folder)
    except OSError as error:
        raise BadInputError(f"{folder} cannot be written: {error.strerror or error}") from error
    known = exported(directory)
    if folder not in known:
        durable.write(directory / _BOOK, "".join(f"{path}\n" for path in (*known, folder)).encode())
    return plan


def exported(directory: Path) -> tuple[Path, ...]:
    """The folders that were written and are still there."""
    try:
        lines = (directory / _BOOK).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(path for path in map(Path, lines) if (path / _PLAN).exists())


def freshen(directory: Path, settings: CenterSettings, folder: Path, *, now: datetime) -> list[Path]:
    """Bring authority, revocation list and certificate in an exported folder up to date.

    Returns:
        What a broker reads again at SIGHUP, besides its access rules.
    """
    for name, source in _COPIED.items():
        data = (directory / source).read_bytes()
        if not (folder / name).exists() or (folder / name).read_bytes() != data:
            durable.write(folder / name, data)
    if is_due(renewing.load_certificate(folder / "broker.crt"), now=now):
        _issue(directory, settings, folder, now=now)
    return [folder / "broker.crt", folder / "ca.crl"]


def renew(directory: Path, settings: CenterSettings, *, now: datetime) -> None:
    """New certificates for all exported brokers."""
    for folder in exported(directory):
        _issue(directory, settings, folder, now=now)


def _issue(directory: Path, settings: CenterSettings, folder: Path, *, now: datetime) -> None:
    renewing.issue_server(
        folder / "broker.key",
        folder / "broker.crt",
        hosts=renewing.hosts_of(settings),
        authority_pair=renewing.load_authority(directory),
        now=now,
    )
