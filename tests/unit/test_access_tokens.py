import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from runtime.master_secret import MasterSecret, Purpose, new_master_secret
from tokens.access_tokens import MOST_CHARACTERS, AccessTokens, Grant, InvalidAccessTokenError
from tokens.signing_keys import SigningKeys

URL = "https://relay.example.com"
PROJECT, OTHER = "3f0d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10", "9b2d7c1e-59a4-4a53-9a8e-2f1f5a0c9f10"
ISSUER = f"{URL}/api/v1/projects/{PROJECT}"
ANONYMOUS_ISSUER = f"{URL}/api/v1/projects-anonymous-users/{PROJECT}"
NOW = 1_714_000_000.9
GRANT = Grant(
    project_id=PROJECT, family_id="00" * 13, subject="ada", client_id=PROJECT, scope="read write", audience=(PROJECT,)
)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Relay:
    """The access tokens of an API process, whose master secrets can be changed."""

    def __init__(self, *secrets: MasterSecret) -> None:
        self.secrets = secrets or (new_master_secret(),)
        self.keys = SigningKeys(lambda: self.secrets)
        self.tokens = AccessTokens(self.keys, URL, 300)

    def accepts(
        self, token: str, project_id: str = PROJECT, *, audience: str = PROJECT, anonymous: bool = False
    ) -> bool:
        """Return whether a token is valid now."""
        try:
            self.tokens.verify(token, project_id, [audience], NOW, accept_anonymous=anonymous)
        except InvalidAccessTokenError:
            return False
        return True


@pytest.fixture
def relay() -> Relay:
    """A relay with one master secret."""
    return Relay()


def part(token: str, index: int) -> Any:  # noqa: ANN401 - JSON
    """Return the header (0) or the claims (1) of a token."""
    text = token.split(".")[index]
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def forged(relay: Relay, *, claims: dict[str, Any] | None = None, **header: Any) -> str:  # noqa: ANN401 - JSON
    """Return a token that the relay's own key signs, with a header and claims that it would not have."""
    ring = relay.keys.of_project(PROJECT)
    right = part(relay.tokens.sign(GRANT, NOW), 1)
    given = {"alg": "ES256", "typ": "at+jwt", "kid": ring.kid} | header
    given = {name: value for name, value in given.items() if value is not None}
    merged = {name: value for name, value in (right | (claims or {})).items() if value is not ...}
    return jwt.encode(given, merged, ring.signer, algorithms=["ES256"], default_type=None)


def is_signed_by_a_key_of(token: str, key_set: dict[str, list[dict[str, Any]]]) -> bool:
    """Check a signature as a resource server does that has no library of ours: by kid, with the published numbers."""
    signed, _, signature = token.rpartition(".")
    kid, raw = part(token, 0)["kid"], urlsafe_b64decode(signature + "==")
    found = [key for key in key_set["keys"] if key["kid"] == kid]
    if not found:
        return False
    x, y = (int.from_bytes(urlsafe_b64decode(found[0][name] + "=")) for name in "xy")
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key().verify(der, signed.encode(), ECDSA(SHA256()))
    return True


def test_token_is_an_access_token_of_rfc_9068(relay: Relay) -> None:
    """Its header, each of its claims, and what verifying returns of them."""
    token = relay.tokens.sign(GRANT, NOW)
    assert part(token, 0) == {"alg": "ES256", "typ": "at+jwt", "kid": relay.keys.of_project(PROJECT).kid}
    claims = part(token, 1)
    token_id = claims.pop("jti")
    assert len(token_id) == 22
    assert claims == {
        "iss": ISSUER,
        "sub": "ada",
        "aud": PROJECT,
        "client_id": PROJECT,
        "iat": 1_714_000_000,
        "exp": 1_714_000_300,
        "scope": "read write",
        "sid": "00" * 13,
    }
    found = relay.tokens.verify(token, PROJECT, [PROJECT], NOW)
    assert (found.issuer, found.subject, found.audiences) == (ISSUER, "ada", (PROJECT,))
    assert (found.client_id, found.scope, found.family_id) == (PROJECT, "read write", "00" * 13)
    assert (found.issued_at, found.expires_at, found.token_id) == (1_714_000_000, 1_714_000_300, token_id)
    assert (found.is_anonymous, found.confirmation) == (False, None)
    assert part(relay.tokens.sign(GRANT, NOW), 1)["jti"] != token_id


def test_token_may_be_for_several_and_bound_to_a_key(relay: Relay) -> None:
    """A list of audiences (RFC 8707), one of which must be asked for; a thumbprint (RFC 9449)."""
    resources = ("https://a.example", "https://b.example")
    token = relay.tokens.sign(GRANT._replace(audience=resources, key_thumbprint="t" * 43), NOW)
    assert part(token, 1)["aud"] == list(resources)
    found = relay.tokens.verify(token, PROJECT, {"https://b.example", "https://c.example"}, NOW)
    assert (found.audiences, found.confirmation) == (resources, {"jkt": "t" * 43})
    assert not relay.accepts(token)


def test_resource_server_checks_it_with_the_key_set(relay: Relay) -> None:
    """Nothing private is published; each key says what it is for, and its kid is its thumbprint (RFC 7638)."""
    key_set = relay.tokens.key_set(PROJECT)
    [key] = key_set["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert key["kid"] == ECKey.import_key(key).thumbprint()
    assert is_signed_by_a_key_of(relay.tokens.sign(GRANT, NOW), key_set)
    assert not is_signed_by_a_key_of(relay.tokens.sign(GRANT, NOW), relay.tokens.key_set(OTHER))


def test_key_follows_from_the_master_secret_as_fips_186_5_says() -> None:
    """A.2.1, over HKDF's output: the derivation may never change, or all tokens would be refused at an update."""
    secret = MasterSecret("a", bytes(range(32)), None)
    seed = secret.derive(Purpose.SIGNING, PROJECT, 48)
    signer = Relay(secret).keys.of_project(PROJECT).signer
    assert signer.private_key is not None
    assert signer.private_key.private_numbers().private_value == int.from_bytes(seed) % (ORDER - 1) + 1
    assert Relay(secret).keys.of_project(PROJECT).kid == "D4EMOoq7SrBEJM4ViSJX2vyXp2v48Zq3XkXeiu441MA"


def test_keys_are_derived_once(relay: Relay) -> None:
    """As long as the master secrets stay."""
    ring = relay.keys.of_project(PROJECT)
    assert relay.keys.of_project(PROJECT) is ring
    relay.secrets = (*relay.secrets, new_master_secret())
    assert relay.keys.of_project(PROJECT) is not ring
    assert relay.keys.of_project(PROJECT).kid == ring.kid


def test_master_secret_is_replaced_without_a_token_being_refused() -> None:
    """Added, it is published; promoted, it signs; and what the old one signed is valid until that is dropped."""
    old, new = new_master_secret(), new_master_secret()
    relay = Relay(old)
    of_old = relay.tokens.sign(GRANT, NOW)
    relay.secrets = (old, new)
    published = relay.tokens.key_set(PROJECT)
    assert len(published["keys"]) == 2
    assert part(relay.tokens.sign(GRANT, NOW), 0)["kid"] == part(of_old, 0)["kid"] == published["keys"][0]["kid"]
    relay.secrets = (new, old)
    of_new = relay.tokens.sign(GRANT, NOW)
    assert part(of_new, 0)["kid"] == relay.tokens.key_set(PROJECT)["keys"][0]["kid"] == published["keys"][1]["kid"]
    assert is_signed_by_a_key_of(of_new, published)  # a cached key set of before the promotion
    assert (relay.accepts(of_old), relay.accepts(of_new)) == (True, True)
    relay.secrets = (new,)
    assert (relay.accepts(of_old), relay.accepts(of_new)) == (False, True)


def test_token_expires_with_its_life(relay: Relay) -> None:
    """To the second; the life is a setting."""
    token = relay.tokens.sign(GRANT, NOW)
    relay.tokens.verify(token, PROJECT, [PROJECT], NOW + 299)
    with pytest.raises(InvalidAccessTokenError, match="expired"):
        relay.tokens.verify(token, PROJECT, [PROJECT], 1_714_000_300)
    assert part(AccessTokens(relay.keys, URL, 60).sign(GRANT, NOW), 1)["exp"] == 1_714_000_060


def test_token_of_another_project_audience_or_issuer_is_refused(relay: Relay) -> None:
    """Each alone; so is a relay with the same secrets at another origin."""
    token = relay.tokens.sign(GRANT, NOW)
    assert relay.accepts(token)
    assert not relay.accepts(token, OTHER)
    assert not relay.accepts(token, audience=OTHER)
    assert not relay.accepts(relay.tokens.sign(GRANT._replace(project_id=OTHER), NOW))
    elsewhere = AccessTokens(relay.keys, "https://other.example.com", 300)
    assert not relay.accepts(elsewhere.sign(GRANT, NOW))
    assert not Relay().accepts(token)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "dpop+jwt"},
        {"kid": None},
        {"kid": "another"},
    ],
    ids=repr,
)
def test_token_of_another_kind_is_refused(relay: Relay, header: dict[str, Any]) -> None:
    """Even if its signature is right: no other JWT of the relay may pass for an access token (RFC 8725 §3.11)."""
    assert relay.accepts(forged(relay))
    assert not relay.accepts(forged(relay, **header))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": ...},
        {"exp": "9999999999"},
        {"aud": []},
        {"aud": ...},
        {"aud": [1]},
        {"sub": ...},
        {"sid": None},
        {"iss": [ISSUER]},
        {"is_anonymous": True},
    ],
    ids=repr,
)
def test_token_with_a_defective_claim_is_refused(relay: Relay, claims: dict[str, Any]) -> None:
    """Missing, or of another type."""
    assert not relay.accepts(forged(relay, claims=claims))


def test_algorithm_is_not_the_token_s_choice(relay: Relay) -> None:
    """Neither none, nor a shared secret made of the public key (RFC 8725 §2.1)."""
    token = relay.tokens.sign(GRANT, NOW)
    _, claims, signature = token.split(".")
    kid = part(token, 0)["kid"]

    def with_header(header: dict[str, str], signature: str) -> str:
        return f"{urlsafe_b64encode(json.dumps(header).encode()).rstrip(b'=').decode()}.{claims}.{signature}"

    for algorithm in ("none", "HS256", "ES384", "RS256"):
        for end in ("", signature):
            assert not relay.accepts(with_header({"alg": algorithm, "typ": "at+jwt", "kid": kid}, end))
    public = json.dumps(relay.tokens.key_set(PROJECT)["keys"][0]).encode()
    confused = jwt.encode(
        {"alg": "HS256", "typ": "at+jwt", "kid": kid}, part(token, 1), OctKey.import_key(public), algorithms=["HS256"]
    )
    assert not relay.accepts(confused)


def test_key_in_the_header_is_not_used(relay: Relay) -> None:
    """A token that brings its own key, under a right kid (RFC 8725 §3.10)."""
    stranger = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "typ": "at+jwt", "kid": relay.keys.of_project(PROJECT).kid, "jwk": stranger.as_dict()}
    token = jwt.encode(header, part(relay.tokens.sign(GRANT, NOW), 1), stranger, algorithms=["ES256"])
    assert not relay.accepts(token)


@given(st.text(), st.integers(0, 600))
def test_no_text_is_taken_for_a_token(text: str, position: int) -> None:
    """Any text, and a right token with any text in it, are refused with the one error."""
    relay = Relay(MasterSecret("a", bytes(32), None))
    token = relay.tokens.sign(GRANT, NOW)
    assert not relay.accepts(text)
    changed = token[:position] + text + token[position + 1 :]
    if relay.accepts(changed):  # base64url has several spellings of the last bits: the token still says the same
        assert [part(changed, index) for index in (0, 1)] == [part(token, index) for index in (0, 1)]


@pytest.mark.parametrize("start", ["[" * 6_000, '{"a":' * 1_200])
def test_token_that_nests_deeply_is_refused(relay: Relay, start: str) -> None:
    """As a header or as claims."""
    deep = urlsafe_b64encode(start.encode()).rstrip(b"=").decode()[:8_000]
    header, claims, signature = relay.tokens.sign(GRANT, NOW).split(".")
    for token in (f"{deep}.{claims}.{signature}", f"{header}.{deep}.{signature}"):
        assert not relay.accepts(token)


def test_token_with_the_longest_audiences_is_still_looked_at(relay: Relay) -> None:
    """The limit is beyond what the relay signs."""
    resources = tuple(f"https://{number}.example/" + "r" * 200 for number in range(8))
    token = relay.tokens.sign_for_stack(GRANT._replace(scope="s" * 1_000), NOW, NOW)
    assert len(token) < MOST_CHARACTERS / 2
    assert relay.accepts(token)
    many = relay.tokens.sign(GRANT._replace(audience=resources), NOW)
    assert relay.accepts(many, audience=resources[7])
    assert not relay.accepts(many + "a" * MOST_CHARACTERS)


STACK_CLAIMS = {
    *("sub", "iat", "iss", "aud", "exp", "project_id", "branch_id", "refresh_token_id", "role", "name", "email"),
    *("email_verified", "selected_team_id", "signed_up_at", "is_anonymous", "is_restricted", "restricted_reason"),
    *("requires_totp_mfa",),
}
"""What both generations of Stack's SDK require together; one that is missing makes every token invalid for it."""


def test_token_for_stack_has_what_its_sdk_requires(relay: Relay) -> None:
    """In addition to those of RFC 9068; its audience is the project, one text."""
    token = relay.tokens.sign_for_stack(GRANT._replace(audience=("elsewhere",)), NOW, NOW - 60.5)
    claims = part(token, 1)
    assert claims.keys() >= STACK_CLAIMS | {"jti", "client_id", "scope", "sid"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, PROJECT, "ada")
    assert (claims["project_id"], claims["branch_id"], claims["role"]) == (PROJECT, "main", "authenticated")
    assert claims["refresh_token_id"] == claims["sid"] == "00" * 13
    assert claims["signed_up_at"] == 1_713_999_940
    assert [claims[name] for name in ("name", "email", "selected_team_id", "restricted_reason")] == [None] * 4
    assert [claims[name] for name in ("email_verified", "is_anonymous", "is_restricted", "requires_totp_mfa")] == [
        False
    ] * 4
    assert relay.accepts(token)


def test_anonymous_user_s_token_is_taken_only_where_it_is_asked_for(relay: Relay) -> None:
    """Another key, another issuer, another audience: a verifier that checks only one of them refuses it."""
    token = relay.tokens.sign_for_stack(GRANT._replace(is_anonymous=True), NOW, NOW)
    claims = part(token, 1)
    assert (claims["iss"], claims["aud"]) == (ANONYMOUS_ISSUER, f"{PROJECT}:anon")
    assert (claims["is_anonymous"], claims["is_restricted"]) == (True, True)
    assert claims["restricted_reason"] == {"type": "anonymous"}
    assert not relay.accepts(token)
    assert not relay.accepts(token, audience=f"{PROJECT}:anon")
    assert relay.accepts(token, anonymous=True)
    assert relay.accepts(relay.tokens.sign(GRANT, NOW), anonymous=True)
    assert not is_signed_by_a_key_of(token, relay.tokens.key_set(PROJECT))
    assert is_signed_by_a_key_of(token, relay.tokens.key_set(PROJECT, include_anonymous=True))


def test_project_s_key_signs_for_no_anonymous_user_and_the_other_way_round(relay: Relay) -> None:
    """What the claims say of themselves must fit the key."""
    issuer = {"iss": ANONYMOUS_ISSUER, "aud": f"{PROJECT}:anon", "is_anonymous": True}
    assert not relay.accepts(forged(relay, claims=issuer), anonymous=True)
    ring = relay.keys.of_anonymous(PROJECT)
    claims = part(relay.tokens.sign(GRANT, NOW), 1)
    token = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": ring.kid}, claims, ring.signer, algorithms=["ES256"])
    assert not relay.accepts(token, anonymous=True)
