"""Settings: every variable is read, every typing error is named."""

from __future__ import annotations

from dataclasses import fields

import pytest

from optimizer.config import SETTINGS, Settings, variable
from optimizer.errors import ConfigError

CHANGED: dict[str, object] = {
    "database": "sqlite:////srv/x.db",
    "bind": "[::1]:80",
    "workers": 7,
    "threads": 48,
    "scheduler": False,
    "log_level": "debug",
    "log_format": "text",
    "public_url": "https://example.org/sendtide",
    "max_body_bytes": 2048,
    "max_batch_bytes": 4096,
    "max_batch_rows": 5,
    "retrain_minutes": 0.5,
    "refresh_seconds": 2.5,
    "expire_seconds": 1.0,
    "reload_seconds": 0.25,
    "retention_days": 3,
    "archive_days": 2,
    "archive_folder": "old",
    "push_seconds": 0.5,
    "private_webhooks": True,
    "gate": False,
    "encoder": "cnn",
    "personalizer_unknown_events": "refuse",
    "seed": "abc",
    "metrics_dir": "var/metrics",
    "metrics_token": "0123456789abcdef",
    "report_folder": "kept",
    "train_memory_mib": 1024,
}


def test_without_variables_every_default_is_allowed() -> None:
    settings = Settings.from_environment({"PATH": "/bin"})
    assert settings == Settings()
    assert Settings.from_environment(settings.environment()) == settings


def test_the_table_of_changed_values_covers_every_setting() -> None:
    assert list(CHANGED) == [setting.name for setting in fields(Settings)]
    assert all(CHANGED[setting.name] != setting.default for setting in fields(Settings))


def test_every_setting_survives_the_way_through_the_environment() -> None:
    settings = Settings(**CHANGED)  # type: ignore[arg-type]  # a table of all fields
    assert Settings.from_environment(settings.environment()) == settings


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_each_variable_sets_its_own_field_and_no_other(name: str) -> None:
    text = Settings(**CHANGED).environment()[variable(name)]  # type: ignore[arg-type]  # a table of all fields
    assert Settings.from_environment({variable(name): text}) == Settings().override(**{name: CHANGED[name]})


UNREADABLE = [
    ("DATABASE", "mysql://x"),
    ("DATABASE", "postgresql:/x"),
    ("DATABASE", "postgresql://host/a b"),
    ("DATABASE", "sqlite:///"),
    ("DATABASE", "sqlite:///:memory:"),
    ("DATABASE", "sqlite:///var/"),
    ("BIND", "8080"),
    ("BIND", "127.0.0.1:0"),
    ("BIND", "127.0.0.1:65536"),
    ("BIND", "::1:80"),
    ("BIND", "host:http"),
    ("WORKERS", "0"),
    ("WORKERS", "two"),
    ("WORKERS", "2.5"),
    ("WORKERS", ""),
    ("THREADS", "-1"),
    ("SCHEDULER", "maybe"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("PUBLIC_URL", "example.org"),
    ("PUBLIC_URL", "https://example.org/?a=b"),
    ("PUBLIC_URL", "https://example.org:99999"),
    ("PUBLIC_URL", "https://example.org:0/sendtide"),
    ("PUBLIC_URL", "https://example.org:https"),
    ("PUBLIC_URL", "https://:8080"),
    ("PUBLIC_URL", "https://[::1"),
    ("MAX_BODY_BYTES", "10"),
    ("RETRAIN_MINUTES", "nan"),
    ("RETRAIN_MINUTES", "0"),
    ("REFRESH_SECONDS", "inf"),
    ("RETENTION_DAYS", "0"),
    ("GATE", "2"),
    ("ENCODER", "lstm"),
    ("SEED", ""),
    ("TRAIN_MEMORY_MIB", "100"),
]


@pytest.mark.parametrize(("name", "text"), UNREADABLE)
def test_a_value_that_cannot_be_read_is_named_with_what_is_allowed(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({f"SENDTIDE_{name}": text})
    assert f"SENDTIDE_{name} is {text!r}; allowed: {SETTINGS[name.lower()].allowed}" == caught.value.detail
    assert list(caught.value.errors) == [name.lower()]


@pytest.mark.parametrize("text", ["http://h", "https://h:65535", "http://[::1]:1/a/b"])
def test_a_public_address_may_have_a_port_and_a_path(text: str) -> None:
    read = Settings.from_environment({"SENDTIDE_PUBLIC_URL": f"{text}/"})
    assert read.public_url == text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SENDTIDE_WORKER", "did you mean SENDTIDE_WORKERS?"),
        ("SENDTIDE_workers", "SENDTIDE_workers is not a setting"),
        ("SENDTIDE_DATABASE_URL", "did you mean SENDTIDE_DATABASE?"),
        ("SENDTIDE_XYZZY", "nearest: SENDTIDE_"),
        ("SENDTIDE_", "is not a setting"),
    ],
)
def test_an_unknown_variable_stops_the_start_and_is_named(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        Settings.from_environment({name: "1"})
    assert hint in caught.value.detail


def test_variables_of_others_and_of_shared_flags_are_left_alone() -> None:
    environ = {"SENDTIDE_JSON": "1", "SENDTIDE_WORKSPACE": "w", "SENDTIDE_DECIDE_OUT": "f", "WORKERS": "many"}
    assert Settings.from_environment(environ, also=["SENDTIDE_DECIDE_OUT"]) == Settings()
    with pytest.raises(ConfigError, match="SENDTIDE_DECIDE_OUT"):
        Settings.from_environment(environ)


def test_a_child_inherits_these_settings_and_nothing_else_of_ours() -> None:
    environ = {"PATH": "/bin", "SENDTIDE_WORKERS": "9", "SENDTIDE_JSON": "1"}
    child = Settings(workers=3).child_environment(environ)
    assert child["PATH"] == "/bin"
    assert "SENDTIDE_JSON" not in child
    assert Settings.from_environment(child) == Settings(workers=3)


def test_flags_that_were_not_given_change_nothing() -> None:
    assert Settings(workers=3).override(workers=None, threads=40) == Settings(workers=3, threads=40)
