"""A sealed value opens for its own context and key, and every other attempt fails in one and the same way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto.framing import frame
from shared.crypto.secret import SecretBytes
from shared.custody import seals
from shared.custody.contexts import CredentialContext, SealContext, ValueContext
from shared.custody.keks import Kek
from shared.custody.seals import LARGEST_VALUE, OVERHEAD_BYTES, SealedValue, open_at_rest, seal_at_rest
from shared.custody.wraps import WRAP_BYTES, kek_id_of, rewrap, unwrap_dek, wrap_dek
from shared.errors import SealInvalid, TooLarge
from tests.thoroughness import THOROUGH, examples
from tests.unit.custody.make_golden import CREDENTIAL_CONTEXT, GOLDEN, VALUE_CONTEXT, counting_kek

KEK = Kek.generate()
OTHER_KEK = Kek.generate()
CONTEXT = ValueContext(owner="profile/a", server="server/b", field="DB_URL", version=7)
CREDENTIAL = CredentialContext(service="sync", source="main", origin="https://vault.example:8200", ca="c0" * 32)


def sealed(value: bytes = b"a value of some length", context: SealContext = CONTEXT, kek: Kek = KEK) -> SealedValue:
    return seal_at_rest(SecretBytes(value), context=context, kek=kek)


def refused(value: SealedValue, context: SealContext = CONTEXT, kek: Kek = KEK) -> None:
    """It does not open, and says neither why nor what."""
    with pytest.raises(SealInvalid) as error:
        open_at_rest(value, context=context, kek=kek)
    assert str(error.value) == str(SealInvalid())
    assert (error.value.__cause__, error.value.__suppress_context__ or error.value.__context__ is None) == (None, True)


words = st.text(max_size=12)
contexts: st.SearchStrategy[SealContext] = st.one_of(
    st.builds(ValueContext, words, words, words, st.integers(-(2**63), 2**63 - 1)),
    st.builds(CredentialContext, words, words, words, words),
)


@given(st.binary(max_size=300), contexts)
@settings(max_examples=examples(60))
def test_what_was_sealed_opens(value: bytes, context: SealContext) -> None:
    made = sealed(value, context)
    assert open_at_rest(made, context=context, kek=KEK).matches(value)
    assert (len(made.sealed), len(made.wrap)) == (len(value) + OVERHEAD_BYTES, WRAP_BYTES)


@given(contexts, contexts)
@settings(max_examples=examples(60))
def test_two_contexts_are_never_the_same_bytes(one: SealContext, other: SealContext) -> None:
    assert (one.framed() == other.framed()) == (one == other)


@pytest.mark.parametrize("name", ["owner", "server", "field", "version"])
def test_a_row_whose_value_fields_were_exchanged_does_not_open(name: str) -> None:
    other = replace(CONTEXT, **{name: 8 if name == "version" else "another"})  # type: ignore[arg-type]
    refused(sealed(), other)
    refused(sealed(context=other))


@pytest.mark.parametrize("name", ["service", "source", "origin", "ca"])
def test_a_credential_for_another_place_has_to_be_entered_again(name: str) -> None:
    made = sealed(context=CREDENTIAL)
    assert open_at_rest(made, context=CREDENTIAL, kek=KEK).matches(b"a value of some length")
    refused(made, replace(CREDENTIAL, **{name: "another"}))


def test_neighbouring_fields_do_not_run_into_each_other() -> None:
    refused(sealed(context=ValueContext("ab", "c", "d", 1)), ValueContext("a", "bc", "d", 1))
    refused(sealed(context=CredentialContext("a", "b", "c", "")), CredentialContext("a", "b", "", "c"))


@pytest.mark.parametrize("name", ["owner", "server", "field", "version"])
def test_the_value_is_bound_by_itself_and_not_only_through_its_key(name: str) -> None:
    made, other = sealed(), replace(CONTEXT, **{name: 8 if name == "version" else "another"})  # type: ignore[arg-type]
    dek = unwrap_dek(made.wrap, framed=CONTEXT.framed(), kek=KEK)
    dek_id = made.sealed[1:17]
    moved = replace(made, wrap=wrap_dek(dek, dek_id, framed=other.framed(), kek=KEK))
    assert unwrap_dek(moved.wrap, framed=other.framed(), kek=KEK) == dek
    refused(moved, other)


def test_the_key_and_the_value_of_two_rows_do_not_fit_even_under_one_context() -> None:
    one, other = sealed(), sealed()
    refused(SealedValue(one.sealed, other.wrap))
    refused(SealedValue(other.sealed, one.wrap))


def test_another_data_key_id_does_not_open_on_either_side() -> None:
    made = sealed()
    refused(replace(made, sealed=made.sealed[:1] + bytes(16) + made.sealed[17:]))
    refused(replace(made, wrap=made.wrap[:11] + bytes(16) + made.wrap[27:]))


def test_another_installation_key_does_not_open_by_its_own_name_or_by_the_first_ones() -> None:
    made = sealed()
    refused(made, kek=OTHER_KEK)
    refused(replace(made, wrap=made.wrap[:1] + OTHER_KEK.id_bytes + made.wrap[11:]), kek=OTHER_KEK)
    refused(replace(made, wrap=made.wrap[:1] + OTHER_KEK.id_bytes + made.wrap[11:]), kek=KEK)


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


SEALED = sealed()


def test_a_flipped_bit_anywhere_does_not_open() -> None:
    for bit in range(len(SEALED.sealed) * 8):
        refused(replace(SEALED, sealed=_flipped(SEALED.sealed, bit)))
    for bit in range(len(SEALED.wrap) * 8):
        refused(replace(SEALED, wrap=_flipped(SEALED.wrap, bit)))


@pytest.mark.parametrize("part", ["sealed", "wrap"])
def test_bytes_that_are_cut_or_longer_or_of_no_known_format_do_not_open(part: str) -> None:
    whole: bytes = getattr(SEALED, part)
    cuts = [whole[:length] for length in range(len(whole))]
    for odd in [*cuts, whole + b"\0", b"\0" + whole, b"\0" + whole[1:], b"\2" + whole[1:], bytes(200)]:
        refused(replace(SEALED, **{part: odd}))


def test_a_seal_longer_than_any_value_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwrapping(*_: object) -> None:
        pytest.fail("computed something")

    monkeypatch.setattr(Kek, "unwrap", unwrapping)
    refused(replace(SEALED, sealed=SEALED.sealed + bytes(LARGEST_VALUE)))


def test_a_value_that_opens_under_two_keys_is_found_by_its_commitment(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sealed()

    def decrypting(_key: bytes) -> None:
        pytest.fail("decrypted although the key is another")

    other_dek = wrap_dek(b"k" * 32, made.sealed[1:17], framed=CONTEXT.framed(), kek=KEK)
    monkeypatch.setattr(seals, "AESGCM", decrypting)
    refused(replace(made, wrap=other_dek))


def test_no_two_seals_share_a_key_an_id_or_a_nonce() -> None:
    count = 1_000_000 if THOROUGH else 1_000
    ids, nonces, commitments = set[bytes](), set[bytes](), set[bytes]()
    for _ in range(count):
        one = sealed(b"x")
        ids.add(one.sealed[1:17])
        nonces.update((one.sealed[17:29], one.wrap[27:39]))
        commitments.add(one.sealed[29:61])
    assert (len(ids), len(nonces), len(commitments)) == (count, 2 * count, count)


def test_the_largest_value_arrives_byte_for_byte_and_a_larger_one_is_refused() -> None:
    value = bytes(range(256)) * (LARGEST_VALUE // 256)
    assert open_at_rest(sealed(value), context=CONTEXT, kek=KEK).matches(value)
    with pytest.raises(TooLarge, match="65536 bytes at most"):
        sealed(value + b"x")


def test_sealing_leaves_the_value_to_its_owner_and_a_wiped_one_is_not_sealed() -> None:
    value = SecretBytes(b"value")
    seal_at_rest(value, context=CONTEXT, kek=KEK)
    assert value.matches(b"value")
    value.wipe()
    with pytest.raises(ValueError, match="wiped"):
        seal_at_rest(value, context=CONTEXT, kek=KEK)


def test_nothing_of_a_seal_is_shown_and_nothing_of_the_value_is_in_it() -> None:
    made = sealed(b"hunter2-hunter2-hunter2")
    assert repr(made) == "SealedValue()"
    assert b"hunter2" not in made.sealed + made.wrap


@pytest.mark.parametrize(
    ("name", "context"),
    [("sealed-value-1.json", VALUE_CONTEXT), ("sealed-credential-1.json", CREDENTIAL_CONTEXT)],
)
def test_what_was_sealed_in_format_1_opens_for_ever(name: str, context: SealContext) -> None:
    golden = json.loads((GOLDEN / name).read_text())
    made = SealedValue(bytes.fromhex(golden["sealed"]), bytes.fromhex(golden["wrap"]))
    kek = Kek(SecretBytes(bytes.fromhex(golden["kek"])))
    assert open_at_rest(made, context=context, kek=kek).matches(golden["value"].encode())


def test_the_documented_layout_is_all_that_somebody_else_needs_to_open_a_value() -> None:
    golden = json.loads((GOLDEN / "sealed-value-1.json").read_text())
    kek, outer, inner = (bytes.fromhex(golden[name]) for name in ("kek", "sealed", "wrap"))
    context = frame(b"keyfob/value/1", b"profile/hospital-a", b"server/patients-db", b"DB_URL", b"\0\0\0\0\0\0\0\3")
    kek_id, dek_id, wrap_nonce, wrapped = inner[1:11], inner[11:27], inner[27:39], inner[39:]
    wrapper = HKDF(SHA256(), 32, None, b"keyfob/kek-wrap/1").derive(kek)
    dek = AESGCM(wrapper).decrypt(wrap_nonce, wrapped, frame(b"keyfob/wrap/1", dek_id, kek_id) + context)
    keys = HKDF(SHA256(), 64, None, b"keyfob/sealed-value/1").derive(dek)
    assert (outer[:1], inner[:1], outer[1:17], outer[29:61]) == (b"\1", b"\1", dek_id, keys[32:])
    associated = frame(b"keyfob/sealed-value/1", dek_id) + context
    assert AESGCM(keys[:32]).decrypt(outer[17:29], outer[61:], associated).decode() == golden["value"]


@given(st.binary(max_size=40), contexts)
@settings(max_examples=examples(40))
def test_a_rewrapped_row_opens_with_the_new_key_only_and_its_seal_is_untouched(
    value: bytes, context: SealContext
) -> None:
    made = sealed(value, context)
    renewed = replace(made, wrap=rewrap(made.wrap, context=context, old=KEK, new=OTHER_KEK))
    assert open_at_rest(renewed, context=context, kek=OTHER_KEK).matches(value)
    assert (kek_id_of(made.wrap), kek_id_of(renewed.wrap)) == (KEK.id_bytes, OTHER_KEK.id_bytes)
    refused(renewed, context, KEK)
    assert open_at_rest(made, context=context, kek=KEK).matches(value)


def test_a_row_that_does_not_open_is_not_rewrapped_either() -> None:
    for context, old, wrap in [
        (replace(CONTEXT, version=8), KEK, SEALED.wrap),
        (CONTEXT, OTHER_KEK, SEALED.wrap),
        (CONTEXT, KEK, _flipped(SEALED.wrap, 500)),
        (CONTEXT, KEK, b""),
    ]:
        with pytest.raises(SealInvalid):
            rewrap(wrap, context=context, old=old, new=OTHER_KEK)


def test_the_data_key_is_overwritten_when_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytearray] = []
    unwrap = Kek.unwrap

    def watched(kek: Kek, *arguments: bytes) -> bytearray:
        seen.append(unwrap(kek, *arguments))
        return seen[-1]

    monkeypatch.setattr(Kek, "unwrap", watched)
    open_at_rest(SEALED, context=CONTEXT, kek=KEK)
    rewrap(SEALED.wrap, context=CONTEXT, old=KEK, new=OTHER_KEK)
    assert seen == [bytearray(32), bytearray(32)]


def test_the_id_of_the_key_that_is_needed_is_read_without_a_key() -> None:
    assert kek_id_of(sealed(kek=counting_kek()).wrap) == counting_kek().id_bytes
    for odd in (b"", b"\1" * 86, b"\2" * 87):
        with pytest.raises(SealInvalid):
            kek_id_of(odd)


def test_the_golden_files_are_all_tried() -> None:
    tried = {"kek-1.txt", "sealed-value-1.json", "sealed-credential-1.json", "recovery-1.json"}
    assert tried == {path.name for path in Path(GOLDEN).iterdir()}
