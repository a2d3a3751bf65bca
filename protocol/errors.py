"""Everything that can go wrong between an edge and the center, sorted by who must act.

FederationError
├── MalformedMessageError      these bytes are not one of our messages
├── UntrustedError             the sender is not who it must be
│   ├── BadSignatureError      a signature or a digest does not fit
│   └── NotAdmittedError       the roster does not name this edge
├── UntrustedReleaseError      this release must not be installed
│   ├── DamagedBlockError      a block's bytes are not what its digest says
│   ├── ExpiredReleaseError    its metadata are too old to be believed
│   └── RollbackError          it is not newer than what is installed
├── RoundError                 this aggregation round cannot go on
│   ├── OutOfTurnError         we called a step too early: a bug of ours
│   ├── PeerMisbehavedError    the other side broke the protocol
│   ├── RefusedByPolicyError   this site does not take part on such terms
│   └── TooFewSurvivorsError   fewer edges answered than the round needs
├── BadInputError              what a person or a file gave us cannot be used
├── NoSpaceError               this machine's disk does not take what must be written
└── UnavailableError           a service that we need does not answer
"""

from collections.abc import Iterable


class FederationError(Exception):
    """The root of the tree.

    Attributes:
        advice: what the reader can do about it, or an empty string.
    """

    def __init__(self, what: str, *, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice

    def line(self) -> str:
        """One line for a person: the fact, and in brackets what to do."""
        return f"{self} ({self.advice})" if self.advice else str(self)


class MalformedMessageError(FederationError):
    """These bytes are not one of our messages."""


class UntrustedError(FederationError):
    """The sender is not who it must be."""


class BadSignatureError(UntrustedError):
    """A signature or a digest does not fit."""


class NotAdmittedError(UntrustedError):
    """The roster does not name this edge."""


class UntrustedReleaseError(FederationError):
    """This release must not be installed."""


class DamagedBlockError(UntrustedReleaseError):
    """A block's bytes are not what its digest says."""


class ExpiredReleaseError(UntrustedReleaseError):
    """Its metadata are too old to be believed."""


class RollbackError(UntrustedReleaseError):
    """It is not newer than what is installed."""


class RoundError(FederationError):
    """This aggregation round cannot go on."""


class OutOfTurnError(RoundError):
    """We called a step too early: a bug of ours."""


class PeerMisbehavedError(RoundError):
    """The other side broke the protocol."""


class RefusedByPolicyError(RoundError):
    """This site does not take part on such terms."""


class TooFewSurvivorsError(RoundError):
    """Fewer edges answered than the round needs.

    Attributes:
        missing: the edges that did not answer, as far as they are known.
    """

    def __init__(self, what: str, *, missing: Iterable[str] = (), advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.missing = frozenset(missing)


class BadInputError(FederationError):
    """What a person or a file gave us cannot be used."""


class UnavailableError(FederationError):
    """A service that we need does not answer."""


class NoSpaceError(FederationError):
    """This machine's disk does not take what must be written."""
