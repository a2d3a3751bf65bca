"""`hanse-edge new NAME`: a shop by itself. `hanse-edge join TOKEN`: keys, their public halves to the center.

Both write ``edge.toml`` last: a folder without one is no edge. A shop that was alone keeps its books and settings.
"""

import ssl
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge import durable, settings
from edge.keys import Keys
from edge.releases import renewal
from edge.settings import PolicySettings
from protocol import cohort
from protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, Token
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, UnavailableError
from protocol.identity import edge_id

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What came of it.

    Attributes:
        site: the name under which this edge is known.
        directory: its folder.
    """

    site: str
    federation: str
    directory: Path


def join(token_text: str, *, directory: Path, serving_port: int, min_cohort: int) -> Joined:
    """Redeem a token and set this edge's folder up. Safe to run again after a crash with the same token and folder.

    Args:
        directory: made if it does not exist.
        serving_port: for the query service.
        min_cohort: the smallest cohort that this site agrees to be summed with.

    Raises:
        BadInputError: the token is no token, is refused, or this folder has joined before.
        UnavailableError: the center does not answer.
        BadSignatureError: the answer is not from the center that the token names.
    """
    token = Token.from_text(token_text)
    alone = _alone(directory)
    if alone and settings.load(directory).site.name != token.site:
        name = settings.load(directory).site.name
        raise BadInputError(f"this edge is {name}, the token is for {token.site}", advice=f"hanse-center enroll {name}")
    keys = _own_keys(directory / "keys")
    key = renewal.new_key()
    request = EnrolmentRequest(
        member=keys.member(token.site), certificate_request=renewal.certificate_request(token.site, key)
    )
    answer = _ask(token, request.sign(keys.identity))
    if sha256(answer.root.encode()).digest() != token.root_sha256:
        raise BadSignatureError("the root of trust is not the one in the token", advice="ask for a new token")
    authority = x509.load_der_x509_certificate(token.authority)
    renewal.keep(directory, answer.certificate, key=key, authority=authority)
    _keep(token, answer, authority, directory)
    text = _settings_text(token, answer, min_cohort=min_cohort)
    text += _without_site(alone) if alone else f"\n[serving]\nport = {serving_port}\n"
    durable.write(directory / settings.FILE_NAME, text.encode())
    return Joined(site=token.site, federation=token.federation, directory=directory)


def open_alone(name: str, *, directory: Path, serving_port: int) -> None:
    """Set up the folder of a shop that belongs to no federation, or not yet.

    Raises:
        BadInputError: the name is none, or an edge lives in this folder.
    """
    path = directory / settings.FILE_NAME
    if path.exists():
        raise BadInputError(f"{directory} is an edge already", advice="use another folder with --dir")
    text = f"""\
# Written by hanse-edge new. All settings and their defaults: docs/settings.md
[site]
name = "{edge_id(name)}"

[serving]
port = {serving_port}
"""
    durable.write(path, text.encode())


def _own_keys(folder: Path) -> Keys:
    """The keys of an attempt that died half-way, or new ones."""
    if (folder / "node.key").exists():
        return Keys.load(folder)
    keys = Keys.generate()
    keys.save(folder)
    return keys


def _ask(token: Token, body: bytes) -> EnrolmentAnswer:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=token.authority)
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            response = client.post(
                f"{token.gateway}/v1/enroll", content=body, headers={"Authorization": f"Bearer {token.bearer()}"}
            )
    except httpx.HTTPError as error:
        if "certificate" in str(error).lower():
            raise BadSignatureError(f"{token.gateway} is not of federation {token.federation}") from error
        raise UnavailableError(
            f"the center at {token.gateway} does not answer: {error}", advice="is hanse-center serve running?"
        ) from error
    if response.status_code == httpx.codes.NOT_FOUND:
        raise BadInputError(
            "the center refuses this token: it is wrong, used or expired",
            advice="ask for a new one: hanse-center enroll",
        )
    if response.status_code != httpx.codes.OK:
        raise UnavailableError(f"the center answers {response.status_code}: {response.text.strip()[:200]}")
    try:
        return EnrolmentAnswer.from_bytes(response.content)
    except MalformedMessageError as error:
        raise UnavailableError(f"the center's answer cannot be read: {error}") from error


def _keep(token: Token, answer: EnrolmentAnswer, authority: x509.Certificate, directory: Path) -> None:
    """Store what was pinned."""
    durable.write(directory / renewal.AUTHORITY, authority.public_bytes(Encoding.PEM))
    trust = directory / "trust"
    durable.write(trust / "roster.pub", token.roster_key.hex().encode() + b"\n")
    durable.write(trust / "center.pub", token.center_key.hex().encode() + b"\n")
    durable.write(trust / "root.json", answer.root.encode())


def _alone(directory: Path) -> str:
    """The settings of a shop that has been alone so far; empty: nobody was here.

    Raises:
        BadInputError: it has joined a federation.
    """
    path = directory / settings.FILE_NAME
    if not path.exists():
        return ""
    if settings.load(directory).center is not None:
        raise BadInputError(f"{directory} has joined a federation already", advice="use another folder with --dir")
    return path.read_text("utf-8")


def _without_site(text: str) -> str:
    """All sections but those that joining writes."""
    kept, keeping = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            keeping = line.strip() not in {"[site]", "[policy]"}
        if keeping:
            kept.append(line)
    return "\n" + "".join(kept)


def _settings_text(token: Token, answer: EnrolmentAnswer, *, min_cohort: int) -> str:
    return f"""\
# Written by hanse-edge join. All settings and their defaults: docs/settings.md
[site]
name = "{token.site}"
federation = "{token.federation}"

[center]
gateway = "{token.gateway}"
broker_host = "{answer.broker_host}"
broker_port = {answer.broker_port}

[policy]
min_cohort = {min_cohort}
{_colluders(min_cohort)}"""


def _colluders(min_cohort: int) -> str:
    """Three or four edges leave no room for one that conspires: who asks for so few has to trust all of them."""
    room = cohort.threshold(min_cohort) - PolicySettings().min_honest
    return f"max_colluders = {room}\n" if room < PolicySettings().max_colluders else ""
