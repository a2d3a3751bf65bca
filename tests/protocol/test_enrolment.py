import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol import canonical
from protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, Token
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError
from protocol.identity import EdgeId, FederationId, Member

TOKEN = Token(
    federation=FederationId("hanse"),
    site=EdgeId("visby"),
    gateway="https://127.0.0.1:8443",
    authority=b"der",
    roster_key=b"r" * 32,
    center_key=b"c" * 32,
    root_sha256=b"d" * 32,
    secret=b"s" * 32,
)
IDENTITY = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
MEMBER = Member(edge=EdgeId("visby"), identity=IDENTITY.public_key().public_bytes_raw(), seal=b"s", node=b"n")


def test_a_token_survives_being_pasted_with_line_breaks() -> None:
    text = TOKEN.to_text()
    assert Token.from_text(f"  {text[:40]}\n{text[40:]}\n") == TOKEN


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: "hanse1." + text))
def test_what_is_no_token_says_so(text) -> None:
    with pytest.raises(BadInputError, match="token"):
        Token.from_text(text)


def test_a_token_cut_short_says_so() -> None:
    with pytest.raises(BadInputError, match="damaged"):
        Token.from_text(TOKEN.to_text()[:-7])


def test_a_request_without_the_identity_key_is_refused() -> None:
    request = EnrolmentRequest(member=MEMBER, certificate_request="pem")
    assert EnrolmentRequest.open(request.sign(IDENTITY)) == request
    with pytest.raises(BadSignatureError):
        EnrolmentRequest.open(request.sign(Ed25519PrivateKey.generate()))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", canonical.encode({"content": {}, "proof": ""})])
def test_what_is_no_request_is_malformed(body) -> None:
    with pytest.raises(MalformedMessageError):
        EnrolmentRequest.open(body)


def test_an_answer_comes_back() -> None:
    answer = EnrolmentAnswer(certificate="pem", root="{}", broker_host="localhost", broker_port=8883)
    assert EnrolmentAnswer.from_bytes(answer.to_bytes()) == answer
