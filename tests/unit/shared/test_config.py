"""Secrets come from files that only their owner may read; a mistake is one sentence that never quotes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.config import CommonSettings, DatabaseSettings, HttpSettings, Misconfigured, Mode, read_secret_file

CANARY = "hunter2-canary"


class OwnSettings(HttpSettings, DatabaseSettings):
    """What a service makes of the shared groups."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_TESTS_", frozen=True, extra="ignore")

    pause_s: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _not_too_long(self) -> Self:
        if self.pause_s > 60:
            raise ValueError("pause_s must be at most 60")
        return self


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"  {CANARY}\n")
    path.chmod(0o600)
    return path


def test_the_text_comes_without_the_space_around_it(file: Path) -> None:
    assert len(read_secret_file(file)) == len(CANARY)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_of_its_owner_alone_is_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read_secret_file(file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_a_file_that_others_may_touch_is_refused_with_the_mend(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(Misconfigured, match=f"chmod 600 {file}"):
        read_secret_file(file)


def test_a_link_is_judged_by_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    file.chmod(0o644)
    with pytest.raises(Misconfigured):
        read_secret_file(link)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"absent cannot be read: No such file"):
        read_secret_file(tmp_path / "absent")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    directory, pipe = tmp_path / "directory", tmp_path / "pipe"
    directory.mkdir(mode=0o700)
    os.mkfifo(pipe, mode=0o600)
    for path in (directory, pipe):
        with pytest.raises(Misconfigured, match="cannot be read"):
            read_secret_file(path)


def test_bytes_that_are_no_text_are_refused_and_not_quoted(file: Path) -> None:
    file.write_bytes(CANARY.encode() + b"\xff\xfe")
    with pytest.raises(Misconfigured) as refused:
        read_secret_file(file)
    assert str(file) in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    assert CANARY not in repr(refused.value)


class TestDatabase:
    def test_the_password_of_its_file_is_put_into_the_url_and_not_shown_by_it(self, file: Path) -> None:
        settings = DatabaseSettings(
            database_url="postgresql+asyncpg://keyfob_sync@db/keyfob", database_password_file=file
        )
        url = settings.database()
        assert url.password is not None
        assert (len(url.password), url.username, url.host) == (len(CANARY), "keyfob_sync", "db")
        assert CANARY not in str(url)
        assert CANARY not in repr(settings)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "db",
            "//db/keyfob",
            "postgresql://db/keyfob",
            "sqlite:///x",
            f"postgresql+asyncpg://u:{CANARY}@db:port/x",
        ],
    )
    def test_an_address_that_the_driver_can_not_use_is_answered_by_one_that_it_can(self, url: str) -> None:
        with pytest.raises(Misconfigured, match=r"DATABASE_URL: must look like postgresql\+asyncpg://") as refused:
            DatabaseSettings(database_url=url)
        assert CANARY not in str(refused.value)

    def test_without_a_file_the_url_stays_as_it_is(self) -> None:
        assert DatabaseSettings(database_url="postgresql+asyncpg://h/d").database().password is None

    @pytest.mark.parametrize("pool", [0, -1, 201])
    def test_a_pool_has_a_sensible_size(self, pool: int) -> None:
        with pytest.raises(Misconfigured, match="POOL"):
            DatabaseSettings(database_pool=pool)


class TestCommon:
    def test_production_is_what_nobody_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("KEYFOB_")]:
            monkeypatch.delenv(name)
        settings = CommonSettings()
        assert (settings.mode, settings.kafka_replication) == (Mode.PRODUCTION, 3)

    def test_a_setting_comes_from_the_environment_by_its_prefix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYFOB_MODE", "development")
        monkeypatch.setenv("MODE", "production")
        assert CommonSettings().mode is Mode.DEVELOPMENT

    @pytest.mark.parametrize("brokers", ["b", "b:9092", "b-1.example:9092,b-2.example:9092", "[::1]:9092, 10.0.0.1:1"])
    def test_brokers_are_named_with_or_without_their_port(self, brokers: str) -> None:
        assert CommonSettings(kafka_bootstrap=brokers).kafka_bootstrap == brokers

    @pytest.mark.parametrize(
        "brokers", ["", "b:abc", "b:1,", ",b:1", "kafka://b:1", "b:1 c:2", "b:", ":9092", "b:123456"]
    )
    def test_what_names_no_broker_is_answered_by_what_would(self, brokers: str) -> None:
        with pytest.raises(Misconfigured, match="KEYFOB_KAFKA_BOOTSTRAP: must be host:port"):
            CommonSettings(kafka_bootstrap=brokers)

    @pytest.mark.parametrize("name", ["a b", "a/b", "ä", "x" * 101, "a\n"])
    def test_the_name_of_a_replica_is_one_that_a_broker_takes(self, name: str) -> None:
        with pytest.raises(Misconfigured, match="KEYFOB_KAFKA_MEMBER"):
            CommonSettings(kafka_member=name)

    @pytest.mark.parametrize(
        ("variable", "text", "settings"),
        [
            ("KEYFOB_MODE", "prod", CommonSettings),
            ("KEYFOB_KAFKA_REPLICATION", "three", CommonSettings),
            ("KEYFOB_KAFKA_REPLICATION", "0", CommonSettings),
            ("KEYFOB_TESTS_PORT", "65536", OwnSettings),
            ("KEYFOB_TESTS_DATABASE_POOL", "many", OwnSettings),
            ("KEYFOB_TESTS_PAUSE_S", "-1", OwnSettings),
        ],
    )
    def test_a_setting_that_can_not_be_read_is_named_as_the_admin_wrote_it(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, settings: type[BaseSettings]
    ) -> None:
        monkeypatch.setenv(variable, text)
        with pytest.raises(Misconfigured, match=rf"^{variable}: Input should be .*\.$"):
            settings()

    def test_every_setting_that_can_not_be_read_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYFOB_TESTS_PORT", "x")
        monkeypatch.setenv("KEYFOB_TESTS_PAUSE_S", "x")
        with pytest.raises(Misconfigured, match=r"KEYFOB_TESTS_PORT: .* KEYFOB_TESTS_PAUSE_S: "):
            OwnSettings()

    def test_a_rule_over_several_settings_speaks_for_itself(self) -> None:
        with pytest.raises(Misconfigured, match=r"^KEYFOB_TESTS_\*: pause_s must be at most 60\.$"):
            OwnSettings(pause_s=61)

    def test_settings_do_not_change_under_a_running_service(self) -> None:
        with pytest.raises(ValidationError):
            CommonSettings().mode = Mode.DEVELOPMENT  # type: ignore[misc]
