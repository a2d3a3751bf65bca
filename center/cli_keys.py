"""`hanse-center keys`: who may sign what, and changing that."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from center.signing.rotation import Changed

app = typer.Typer(no_args_is_help=True, help="Keys that releases are signed with: look, rotate, renew, revoke.")
approver = typer.Typer(no_args_is_help=True, help="People who approve what leaves the canary ring.")
app.add_typer(approver, name="approver")

Directory = Annotated[Path, typer.Option("--dir", help="The center's folder.", envvar="HANSE_CENTER_DIR")]
Offline = Annotated[
    list[Path] | None,
    typer.Option("--offline", help="Folder with offline keys, once for each medium; DIR/offline by default."),
]
ApproveWith = Annotated[
    list[Path] | None,
    typer.Option("--approve-with", help="Private key of a person who approves, once for each of them."),
]
Approvals = Annotated[
    int | None, typer.Option(min=0, help="How many of these people must approve; as before, and at least one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_HERE = Path("center-data")
_CONTENT = "content"


@app.command()
def status(directory: Directory = _HERE, offline: Offline = None, as_json: AsJson = False) -> None:
    """Roles, their keys and thresholds, when they end, and which private keys lie here."""
    from rich.console import Console
    from rich.table import Table

    from center.signing import key_status

    rows = key_status.look(directory, offline=_media(directory, offline, optional=True))
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "role": row.role,
                        "version": row.version,
                        "expires": row.expires.isoformat(),
                        "threshold": row.threshold,
                        "keys": {name: str(path) if path else None for name, path in row.keys.items()},
                    }
                    for row in rows
                ]
            )
        )
        return
    table = Table("role", "no.", "ends", "signs", "key", box=None)
    table.add_column("lies in", overflow="fold")
    for row in rows:
        first = (row.role, str(row.version), f"{row.expires:%Y-%m-%d}", f"{row.threshold} of {len(row.keys)}")
        for name, path in row.keys.items():
            table.add_row(*first, _short(name), str(path) if path else "not here")
            first = ("", "", "", "")
    Console().print(table)


@app.command()
def rotate(
    roles: Annotated[
        list[str],
        typer.Argument(metavar="ROLE...", help="root, targets, releases, membership, snapshot, timestamp; content."),
    ],
    directory: Directory = _HERE,
    offline: Offline = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="Id of a root key to replace, or its beginning; all that lie in --offline by default."),
    ] = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys of roles, all at once; from then on the old keys sign nothing, or open nothing new."""
    from center import settings
    from center.signing import rotation
    from center.sites import membership

    signing = [role for role in roles if role != _CONTENT]
    said: dict[str, Any] = {}
    if signing:
        media = _media(directory, offline)
        changed = rotation.rotate(directory, signing, offline=media, replace=replace or (), now=datetime.now(UTC))
        said |= _end(directory, changed)
    if len(signing) < len(roles):
        loaded = settings.load(directory)
        approvals = _keys(approve_with)
        number = membership.change_content_key(directory, loaded, approvals=approvals, now=datetime.now(UTC))
        said[_CONTENT] = {"number": number}
    _say(said, as_json=as_json)


@app.command()
def renew(
    directory: Directory = _HERE,
    offline: Offline = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Sign root and top-level targets for another year, under the same keys."""
    from center.signing import rotation

    changed = rotation.renew(
        directory, offline=_media(directory, offline), approvals=_keys(approve_with), now=datetime.now(UTC)
    )
    _say(_end(directory, changed), as_json=as_json)


@app.command()
def publish(directory: Directory = _HERE) -> None:
    """Sign a fresh timestamp and put everything that is in force on the broker."""
    _publish(directory, renew=True)
    print("Everything that is in force is on the broker.")


@app.command("new-approver")
def new_approver(file: Annotated[Path, typer.Argument(help="Where the private key goes; not on the center.")]) -> None:
    """Make the key of a person who approves; run it where that person keeps it."""
    from center import keys
    from protocol.errors import BadInputError

    public = file.with_name(file.name + ".pub")
    for path in (file, public):
        if path.exists():
            raise BadInputError(f"{path} exists", advice="choose another name")
    keys.new_public_key(public, keys.new_signing_key(file))
    print(f"{file} stays with you. Hand over {public}: hanse-center keys approver add {public.name}")


@approver.command()
def add(
    file: Annotated[Path, typer.Argument(help="The person's public key, as hanse-center keys new-approver made it.")],
    directory: Directory = _HERE,
    offline: Offline = None,
    approvals: Approvals = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Let a person approve; what is out already wants as many signatures as what will come."""
    from center import keys
    from center.signing import rotation

    changed = rotation.add_approver(
        directory,
        keys.load_public_key(file),
        offline=_media(directory, offline),
        approvals=approvals,
        approving=_keys(approve_with),
        now=datetime.now(UTC),
    )
    _say(_end(directory, changed), as_json=as_json)


@approver.command()
def remove(
    key: Annotated[str, typer.Argument(metavar="KEYID", help="Id of the person's key, or its beginning.")],
    directory: Directory = _HERE,
    offline: Offline = None,
    approvals: Approvals = None,
    approve_with: ApproveWith = None,
    as_json: AsJson = False,
) -> None:
    """Let a key approve nothing any more; when the last one goes, nothing wants approval."""
    from center.signing import rotation

    changed = rotation.remove_approver(
        directory,
        key,
        offline=_media(directory, offline),
        approvals=approvals,
        approving=_keys(approve_with),
        now=datetime.now(UTC),
    )
    _say(_end(directory, changed), as_json=as_json)


def _media(directory: Path, offline: list[Path] | None, *, optional: bool = False) -> list[Path]:
    from center import settings
    from center.keys import OFFLINE

    settings.load(directory)  # says so if there is no center
    here = directory / OFFLINE
    return offline or ([] if optional and not here.is_dir() else [here])


def _keys(files: list[Path] | None) -> "list[Ed25519PrivateKey]":
    from center.keys import load_signing_key

    return [load_signing_key(file) for file in files or ()]


def _publish(directory: Path, *, renew: bool) -> None:
    """Put what is in force on the broker."""
    from center import settings
    from center.founding import signing
    from center.keys import CenterKeys
    from center.mqtt import road
    from protocol.errors import UnavailableError

    loaded = settings.load(directory)
    try:
        with road.connected(directory, loaded, CenterKeys.load(directory)) as voice, signing(directory) as repository:
            voice.publish_metadata(repository.refresh(now=datetime.now(UTC)) if renew else repository.published())
    except UnavailableError as error:
        raise UnavailableError(
            f"signed and in force here, but not on the broker yet: {error}",
            advice="hanse-center keys publish, once the broker answers",
        ) from error


def _end(directory: Path, changed: "Changed") -> dict[str, Any]:
    """Write a change of keys into the audit log, and publish."""
    from center.registry import Registry

    registry = Registry(directory / "registry.db")
    for role in dict.fromkeys([*changed.new, *changed.old]):
        registry.record("keys changed", role=role, new=changed.new.get(role, []), old=changed.old.get(role, []))
    for role in changed.finished:
        registry.record("interrupted change of keys ended", role=role)
    registry.close()
    _publish(directory, renew=False)
    return {
        "new": changed.new,
        "old": changed.old,
        "finished": changed.finished,
        "versions": changed.versions,
        "places": {name: str(place) for name, place in changed.places.items()},
    }


def _say(said: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(said))
        return
    for role in said.get("finished", []):
        print(f"{role}: an interrupted rotation is ended")
    for role, names in said.get("new", {}).items():
        for name in names:
            place = said["places"].get(name)
            print(f"{role}: key {_short(name)} is trusted from now on{f', it lies in {place}' if place else ''}")
    for role, names in said.get("old", {}).items():
        for name in names:
            print(f"{role}: key {_short(name)} is trusted no more")
    for role, version in said.get("versions", {}).items():
        print(f"{role} {version} is in force")
    if _CONTENT in said:
        print(f"content: key {said[_CONTENT]['number']} is in force")


def _short(name: str) -> str:
    return name[:12]
