"""A token counts only if a trusted issuer made it, for us, for now; and only by our own configuration."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import traceback
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from shared.errors import TokenInvalid, Unavailable
from shared.identity import Subject, TokenRefusal, TokenVerifier, TrustedIssuer
from shared.identity.tokens import ALLOWED_ALGORITHMS, LARGEST_TOKEN, TokenRefused
from tests.thoroughness import examples
from tests.unit.identity.issuers import AUDIENCE, EC, ISSUER, NOW, RSA, Clock, Issuer, sign, trusted, verifier


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(issuer: Issuer, clock: Clock) -> TokenVerifier:
    return verifier(issuer, clock)


async def refusal(tokens: TokenVerifier, token: str) -> TokenRefusal:
    with pytest.raises(TokenInvalid) as refused:
        await tokens.verify(token)
    assert isinstance(refused.value, TokenRefused)
    shown = "".join(traceback.format_exception(refused.value)).partition("TokenRefused")[2]
    assert not token or token not in shown
    return refused.value.reason


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}.{b64(signature)}"


GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "agent-a", "exp": int(NOW) + 600}


@pytest.mark.parametrize(("kid", "alg"), [("rsa", "RS256"), ("ec", "ES256"), ("ed", "Ed25519")])
async def test_a_good_token_says_who_it_speaks_for(tokens: TokenVerifier, issuer: Issuer, kid: str, alg: str) -> None:
    token = issuer.token(kid=kid, alg=alg)
    digest = hashlib.sha256(token.encode()).digest()
    expected = Subject("idp/1", "agent-a", frozenset({"g1", "g2"}), NOW + 600, digest)
    assert await tokens.verify(token) == expected
    assert await tokens.verify(token) == expected


async def test_the_entry_says_which_claims_name_subject_and_groups(issuer: Issuer, clock: Clock) -> None:
    tokens = verifier(issuer, clock, trusted(subject_claim="oid", groups_claim="roles"))
    subject = await tokens.verify(issuer.token(oid="0f-11", roles=["r1"]))
    assert (subject.subject, subject.groups) == ("0f-11", frozenset({"r1"}))


async def test_no_groups_is_an_empty_set_and_a_single_one_may_be_text(tokens: TokenVerifier, issuer: Issuer) -> None:
    assert (await tokens.verify(issuer.token(groups=None))).groups == frozenset()
    assert (await tokens.verify(issuer.token(groups="only"))).groups == frozenset({"only"})


async def test_one_of_several_audiences_may_be_us(tokens: TokenVerifier, issuer: Issuer) -> None:
    assert await tokens.verify(issuer.token(aud=["another", AUDIENCE]))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another"}, TokenRefusal.AUDIENCE),
        ({"aud": ["another"]}, TokenRefusal.AUDIENCE),
        ({"aud": []}, TokenRefusal.AUDIENCE),
        ({"aud": None}, TokenRefusal.AUDIENCE),
        ({"aud": "keyfob2"}, TokenRefusal.AUDIENCE),
        ({"iss": "https://evil.example"}, TokenRefusal.UNTRUSTED_ISSUER),
        ({"iss": ISSUER + "/"}, TokenRefusal.UNTRUSTED_ISSUER),
        ({"iss": None}, TokenRefusal.UNTRUSTED_ISSUER),
        ({"iss": [ISSUER]}, TokenRefusal.UNTRUSTED_ISSUER),
        ({"exp": int(NOW) - 30}, TokenRefusal.EXPIRED),
        ({"exp": None}, TokenRefusal.CLAIMS),
        ({"exp": "never"}, TokenRefusal.CLAIMS),
        ({"exp": True}, TokenRefusal.CLAIMS),
        ({"exp": 10**400}, TokenRefusal.MALFORMED),
        ({"nbf": int(NOW) + 31}, TokenRefusal.NOT_YET_VALID),
        ({"iat": int(NOW) + 31}, TokenRefusal.NOT_YET_VALID),
        ({"sub": None}, TokenRefusal.CLAIMS),
        ({"sub": ""}, TokenRefusal.CLAIMS),
        ({"sub": 7}, TokenRefusal.CLAIMS),
        ({"sub": "x" * 257}, TokenRefusal.CLAIMS),
        ({"sub": "a\nb"}, TokenRefusal.CLAIMS),
        ({"sub": "a\x00"}, TokenRefusal.CLAIMS),
        ({"sub": "a\x7f"}, TokenRefusal.CLAIMS),
        ({"groups": [1]}, TokenRefusal.CLAIMS),
        ({"groups": [""]}, TokenRefusal.CLAIMS),
        ({"groups": {"g": 1}}, TokenRefusal.CLAIMS),
    ],
)
async def test_a_signed_token_with_wrong_claims_is_refused(
    tokens: TokenVerifier, issuer: Issuer, claims: dict[str, Any], reason: TokenRefusal
) -> None:
    assert await refusal(tokens, issuer.token(**claims)) == reason


@pytest.mark.parametrize("claims", [{"exp": int(NOW) - 29}, {"nbf": int(NOW) + 30}, {"iat": int(NOW) + 30}])
async def test_clocks_may_differ_by_the_leeway(tokens: TokenVerifier, issuer: Issuer, claims: dict[str, Any]) -> None:
    assert await tokens.verify(issuer.token(**claims))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "EdDSA", "", None, 7, ["RS256"], {"RS256": 1}])
async def test_an_algorithm_that_the_entry_does_not_list_is_refused(tokens: TokenVerifier, alg: object) -> None:
    assert await refusal(tokens, forged({"alg": alg, "kid": "rsa"}, GOOD)) == TokenRefusal.ALGORITHM


async def test_the_public_key_is_no_shared_secret(tokens: TokenVerifier) -> None:
    for secret in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
        unsigned = forged({"alg": "HS256", "kid": "rsa"}, GOOD).rpartition(".")[0]
        mac = hmac.digest(secret, unsigned.encode(), "sha256")
        assert await refusal(tokens, f"{unsigned}.{b64(mac)}") == TokenRefusal.ALGORITHM


async def test_a_key_of_one_kind_does_not_serve_an_algorithm_of_another(tokens: TokenVerifier) -> None:
    token = sign(EC, {"alg": "ES256", "kid": "rsa"}, GOOD)
    assert await refusal(tokens, token) == TokenRefusal.SIGNATURE


@pytest.mark.parametrize("length", [0, 64, 96, 132, 256])
async def test_no_pair_of_a_published_key_and_an_algorithm_is_more_than_a_refusal(clock: Clock, length: int) -> None:
    """Whoever sends a token chooses both, and a key may be there for something else altogether."""
    curves = {crv: OKPKey.generate_key(crv) for crv in ("X25519", "X448", "Ed448")}
    keys: dict[str, Key] = {"rsa": RSA, "ec": EC, "p521": ECKey.generate_key("P-521"), **curves}
    tokens = verifier(Issuer(keys=keys), clock, trusted(algorithms=ALLOWED_ALGORITHMS))
    for kid, alg in itertools.product(keys, sorted(ALLOWED_ALGORITHMS)):
        found = await refusal(tokens, forged({"alg": alg, "kid": kid}, GOOD, b"x" * length))
        assert found in {TokenRefusal.SIGNATURE, TokenRefusal.UNKNOWN_KEY}


async def test_members_of_a_header_that_are_of_no_use_to_us_may_be_anything(tokens: TokenVerifier) -> None:
    for odd in ({"typ": 7}, {"cty": [1]}, {"x5c": "x"}, {"jwk": 1}, {"jku": {}}):
        found = await refusal(tokens, forged({"alg": "RS256", "kid": "rsa"} | odd, GOOD))
        assert found == TokenRefusal.SIGNATURE


def test_symmetric_and_absent_algorithms_can_not_be_configured() -> None:
    for algorithm in ("HS256", "none", "dir"):
        with pytest.raises(ValueError, match="not an accepted asymmetric"):
            trusted(algorithms=frozenset({"RS256", algorithm}))


async def test_an_entry_without_algorithms_accepts_nothing(issuer: Issuer, clock: Clock) -> None:
    tokens = verifier(issuer, clock, trusted(algorithms=frozenset()))
    assert await refusal(tokens, issuer.token()) == TokenRefusal.ALGORITHM


async def test_keys_and_addresses_in_the_header_are_never_looked_at(tokens: TokenVerifier, issuer: Issuer) -> None:
    mine = RSAKey.generate_key(2048)
    bait = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": mine.as_dict(private=False),
        "x5c": ["MIIB" * 200],
    }
    for kid, reason in (("rsa", TokenRefusal.SIGNATURE), ("evil", TokenRefusal.UNKNOWN_KEY)):
        token = sign(mine, {"alg": "RS256", "kid": kid} | bait, GOOD)
        assert await refusal(tokens, token) == reason
    assert await tokens.verify(issuer.token(header={"jku": "https://evil.example/jwks", "x5c": ["MIIB" * 200]}))
    assert set(issuer.asked) == {trusted().jwks_uri}


async def test_critical_extensions_and_a_missing_key_id_are_refused(tokens: TokenVerifier, issuer: Issuer) -> None:
    headers: list[dict[str, Any]] = [{"crit": ["b64"], "b64": False}, {"b64": True}, {"crit": []}]
    for header in headers:
        token = forged({"alg": "RS256", "kid": "rsa"} | header, GOOD)
        assert await refusal(tokens, token) == TokenRefusal.MALFORMED
    for key_id in ({}, {"kid": None}, {"kid": ["rsa"]}, {"kid": 1}):
        assert await refusal(tokens, forged({"alg": "RS256"} | key_id, GOOD)) == TokenRefusal.MALFORMED
    assert issuer.asked == []


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "..",
        "a.b.c",
        "e30.e30",
        "e30.e30.e30.e30",
        "W10.W10.",
        "e30.W10.",
        "\u00e9.b.c",
        "e30\n.e30.",
        "e30=.e30.",
        b64(b"[" * 3000) + ".e30.",
        f"e30.{b64(b'[' * 3000)}.",
        forged({}, {}) + "\ud800",
    ],
)
async def test_text_that_is_no_token_is_refused(tokens: TokenVerifier, token: str) -> None:
    assert await refusal(tokens, token) in {TokenRefusal.MALFORMED, TokenRefusal.UNTRUSTED_ISSUER}


async def test_a_token_over_the_limit_is_not_even_read(tokens: TokenVerifier, issuer: Issuer) -> None:
    assert await refusal(tokens, issuer.token(padding="x" * LARGEST_TOKEN)) == TokenRefusal.TOO_LARGE
    assert issuer.asked == []


@given(st.data())
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_character_is_refused(data: st.DataObject) -> None:
    token = _TOKEN
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189-_.").filter(lambda character: character != token[at]))
    with pytest.raises(TokenInvalid):
        asyncio.run(verifier(Issuer(), Clock()).verify(token[:at] + other + token[at + 1 :]))


_TOKEN = sign(RSA, {"alg": "RS256", "kid": "rsa"}, GOOD)


async def test_with_nobody_trusted_everybody_is_refused(issuer: Issuer) -> None:
    tokens = TokenVerifier(fetch_jwks=issuer.fetch)
    assert await refusal(tokens, issuer.token()) == TokenRefusal.UNTRUSTED_ISSUER


async def test_two_entries_for_one_issuer_are_refused(tokens: TokenVerifier) -> None:
    with pytest.raises(ValueError, match="same issuer"):
        tokens.replace_issuers([trusted(), trusted(idp_id="idp/2")])


async def test_another_issuers_key_does_not_speak_for_this_one(issuer: Issuer, clock: Clock) -> None:
    evil = Issuer(keys={"rsa": RSAKey.generate_key(2048)})
    other = trusted(idp_id="idp/2", issuer="https://other.example", jwks_uri="https://other.example/jwks")
    fetchers = {trusted().jwks_uri: issuer, other.jwks_uri: evil}
    tokens = TokenVerifier(
        fetch_jwks=lambda uri: fetchers[uri].fetch(uri), issuers=[trusted(), other], clock=clock, monotonic=clock
    )
    assert (await tokens.verify(evil.token(iss="https://other.example"))).idp_id == "idp/2"
    assert await refusal(tokens, evil.token(iss=ISSUER)) == TokenRefusal.SIGNATURE


class TestRemembering:
    async def test_a_remembered_token_expires_all_the_same(
        self, tokens: TokenVerifier, issuer: Issuer, clock: Clock
    ) -> None:
        token = issuer.token(exp=int(NOW) + 60)
        await tokens.verify(token)
        clock.now = NOW + 89.9
        await tokens.verify(token)
        clock.now = NOW + 90
        assert await refusal(tokens, token) == TokenRefusal.EXPIRED

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"audience": "another"}, TokenRefusal.AUDIENCE),
            ({"algorithms": frozenset({"ES256"})}, TokenRefusal.ALGORITHM),
            ({"subject_claim": "oid"}, TokenRefusal.CLAIMS),
        ],
    )
    async def test_it_is_judged_again_when_its_issuers_entry_changes(
        self, tokens: TokenVerifier, issuer: Issuer, changed: dict[str, Any], reason: TokenRefusal
    ) -> None:
        token = issuer.token()
        await tokens.verify(token)
        tokens.replace_issuers([trusted(**changed)])
        assert await refusal(tokens, token) == reason

    async def test_it_is_refused_once_its_issuer_is_gone(self, tokens: TokenVerifier, issuer: Issuer) -> None:
        token = issuer.token()
        await tokens.verify(token)
        tokens.replace_issuers([])
        assert await refusal(tokens, token) == TokenRefusal.UNTRUSTED_ISSUER

    async def test_an_entry_that_stays_keeps_its_keys(self, tokens: TokenVerifier, issuer: Issuer) -> None:
        token = issuer.token()
        await tokens.verify(token)
        tokens.replace_issuers([trusted(), trusted(idp_id="idp/2", issuer="https://other.example")])
        assert await tokens.verify(token)
        assert await tokens.verify(issuer.token(sub="another"))
        assert len(issuer.asked) == 1

    async def test_it_is_refused_once_its_issuer_withdrew_the_key(
        self, tokens: TokenVerifier, issuer: Issuer, clock: Clock
    ) -> None:
        token = issuer.token(exp=int(NOW) + 3000)
        await tokens.verify(token)
        del issuer.keys["rsa"]
        clock.now = NOW + 301
        await tokens.verify(token)
        await asyncio.sleep(0)
        assert await refusal(tokens, token) == TokenRefusal.UNKNOWN_KEY

    async def test_without_an_answer_from_the_issuer_it_counts_no_longer_than_the_keys(
        self, tokens: TokenVerifier, issuer: Issuer, clock: Clock
    ) -> None:
        token = issuer.token(exp=int(NOW) + 9000)
        await tokens.verify(token)
        issuer.failing = True
        clock.now = NOW + 3599
        assert await tokens.verify(token)
        clock.now = NOW + 3605
        with pytest.raises(Unavailable):
            await tokens.verify(token)

    async def test_no_more_are_remembered_than_allowed_and_the_least_used_goes_first(
        self, issuer: Issuer, clock: Clock
    ) -> None:
        tokens = verifier(issuer, clock, remember=2)
        one, two, three = (issuer.token(sub=name) for name in ("one", "two", "three"))
        for token in (one, two, one, three):
            await tokens.verify(token)
        assert [kept.subject.subject for kept in tokens._verified.values()] == ["one", "three"]

    async def test_a_refusal_is_not_remembered(self, tokens: TokenVerifier, issuer: Issuer, clock: Clock) -> None:
        token = issuer.token(nbf=int(NOW) + 60)
        assert await refusal(tokens, token) == TokenRefusal.NOT_YET_VALID
        clock.now = NOW + 60
        assert await tokens.verify(token)


async def test_an_entry_replaced_while_its_keys_are_fetched_admits_nobody(
    tokens: TokenVerifier, issuer: Issuer
) -> None:
    issuer.released.clear()
    verifying = asyncio.create_task(tokens.verify(issuer.token()))
    await issuer.reached.wait()
    tokens.replace_issuers([])
    issuer.released.set()
    with pytest.raises(TokenInvalid):
        await verifying


def test_an_entry_is_a_value() -> None:
    assert trusted() == TrustedIssuer(**{name: getattr(trusted(), name) for name in TrustedIssuer.__slots__})
