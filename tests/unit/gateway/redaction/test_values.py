"""Which parts of a credential are secret."""

from __future__ import annotations

import json

import pytest

from services.gateway.redaction.values import secret_texts


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (b"eight-ch", [b"eight-ch"]),
        (b"seven-c", []),
        (b"", []),
        # Characters, not bytes: seven of them stay too short.
        ("größer7".encode(), []),
        ("größer78".encode(), ["größer78".encode()]),
        # Not UTF-8: bytes.
        (b"\xff" * 8, [b"\xff" * 8]),
        (b"\xff" * 7, []),
        # Read from a file, with the newline that an editor left.
        (b"  token-from-a-file\r\n", [b"token-from-a-file"]),
        # Blanks that make it long enough belong to it.
        (b"four 1  ", [b"four 1  "]),
    ],
)
def test_a_value_of_eight_characters_is_secret(value: bytes, secret: list[bytes]) -> None:
    assert list(secret_texts(value)) == secret


@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        (b"postgresql://app:long-enough@db.example:5432/records?sslmode=require", [b"long-enough"]),
        (b"https://app:long%2Fenough%40@host", [b"long%2Fenough%40", b"long/enough@"]),
        (b"jdbc:postgresql://app:long-enough@db.example/x", [b"long-enough"]),
        (b"mongodb+srv://app:long-enough@a.example,b.example/x", [b"long-enough"]),
        # The last at-sign ends it, colons belong to it.
        (b"amqp://app:long@enough:too@mq:5672//", [b"long@enough:too"]),
        (b"redis://:only-a-password@cache", [b"only-a-password"]),
        (b"https://app:short@host", []),
        (b"https://app-without-password@host", []),
        (b"https://host.example/path?at=user:not-a-password@x", []),
        (b"no url:at-all-here@host", []),
        # A user name and a host are never secret, not even as somebody's password.
        (b"postgresql://postgres:postgres@db.example/x", []),
        (b"postgresql://app:db.example@db.example:5432/x", []),
        (b"postgresql://app:db.example@db.example/x", []),
    ],
)
def test_of_a_url_only_the_password_is_secret_besides_the_whole(url: bytes, passwords: list[bytes]) -> None:
    assert set(secret_texts(url)) == {url, *passwords}


def test_marked_leaves_of_json_are_secret_and_the_others_are_not() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
    document = {
        "project_id": "hospital-a-project",
        "private_key": key,
        "a/b": {"~": ["not-secret", "secret-in-a-list"]},
        "number": 12345678.50,
        "short": "short",
    }
    value = json.dumps(document).encode()
    found = secret_texts(value, ("/private_key", "/a~1b/~0/1", "/number", "/short"))
    assert set(found) == {value, key.strip().encode(), b"secret-in-a-list", b"12345678.5"}


def test_a_marked_container_means_all_texts_in_it() -> None:
    value = b'{"keys": [{"k": "first-secret"}, {"k": "second-secret"}], "on": true, "none": null}'
    assert set(secret_texts(value, ("",))) == {value, b"first-secret", b"second-secret"}


def test_a_marked_url_has_a_password_too() -> None:
    value = b'{"url": "amqp://app:long-enough@mq"}'
    assert set(secret_texts(value, ("/url",))) == {value, b"amqp://app:long-enough@mq", b"long-enough"}


@pytest.mark.parametrize("pointer", ["/absent", "/list/7", "/list/x", "/list/0/deeper"])
def test_a_mark_that_names_nothing_is_no_error(pointer: str) -> None:
    value = b'{"list": ["only-entry"]}'
    assert secret_texts(value, (pointer,)) == (value,)


@pytest.mark.parametrize("value", [b"{not json at all", b"[" * 100_000, b"\xff\xfe{}......"])
def test_a_mark_on_what_is_not_json_is_no_error(value: bytes) -> None:
    assert secret_texts(value, ("/a",)) == (value,)
