"""`hanse-edge join TOKEN`: makes this site's keys, shows the public halves to the center, writes `edge.toml` last."""

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
    if (directory / settings.FILE_NAME).exists():
        raise BadInputError(f"{directory} has joined a federation already", advice="use another folder with --dir")
    token = Token.from_text(token_text)
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
    text = _settings_text(token, answer, serving_port=serving_port, min_cohort=min_cohort)
    durable.write(directory / settings.FILE_NAME, text.encode())
    return Joined(site=token.site, federation=token.federation, directory=directory)


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


def _settings_text(token: Token, answer: EnrolmentAnswer, *, serving_port: int, min_cohort: int) -> str:
    return f"""\
# Written by hanse-edge join. All settings and their defaults: docs/settings.md
[site]
name = "{token.site}"
federation = "{token.federation}"

[center]
gateway = "{token.gateway}"
broker_host = "{answer.broker_host}"
broker_port = {answer.broker_port}

[serving]
port = {serving_port}

[policy]
min_cohort = {min_cohort}
{_colluders(min_cohort)}"""


def _colluders(min_cohort: int) -> str:
    """Three or four edges leave no room for one that conspires: who asks for so few has to trust all of them."""
    room = cohort.threshold(min_cohort) - PolicySettings().min_honest
    return f"max_colluders = {room}\n" if room < PolicySettings().max_colluders else ""
