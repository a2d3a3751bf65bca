"""`hanse-center enroll`: a one-time token that pins everything its edge must trust."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from center import settings
from center.founding import open_repository
from center.keys import CenterKeys
from center.registry import Registry
from center.sites import upkeep
from protocol.enrolment import SECRET_BYTES, Token, secret_digest
from protocol.errors import BadInputError
from protocol.identity import edge_id, federation_id
from protocol.topics import CENTER


def invite(directory: Path, site: str, *, life: timedelta, now: datetime) -> str:
    """Make a token and remember the digest of its secret.

    Raises:
        BadInputError: not a site's name, or a site that has joined already.
    """
    edge = edge_id(site)
    if edge == CENTER:
        raise BadInputError(f"no site may be called {CENTER}", advice="choose another name")
    loaded = settings.load(directory)
    keys = CenterKeys.load(directory)
    # The newest: under an older one, whoever holds keys that have been replaced could still deceive a newcomer.
    root, pinned = open_repository(directory).newest_root
    token = Token(
        federation=federation_id(loaded.federation),
        site=edge,
        gateway=f"https://{loaded.gateway.host}:{loaded.gateway.port}",
        authority=keys.authority.public_bytes(Encoding.DER),
        roster_key=keys.roster_public.public_bytes_raw(),
        center_key=keys.center.public_key().public_bytes_raw(),
        root_sha256=sha256(pinned).digest(),
        secret=secrets.token_bytes(SECRET_BYTES),
    )
    expires_ms = int((now + life).timestamp() * 1000)
    registry = Registry(directory / "registry.db")
    registry.add_token(secret_digest(token.bearer()), site=edge, expires_ms=expires_ms, root=root)
    upkeep.refresh(directory, loaded, now=now)  # a broker that does not know the name would not hear the site out
    return token.to_text()
