"""The keys of the edge: from the environment only, and none that everybody knows off loopback."""

import hashlib
from pathlib import Path

import pytest

from runtime.config import load
from runtime.errors import ConfigError
from runtime.keys import PUBLIC_DEFAULT, listens_on_loopback_only, resolve_keys
from runtime.tables import SCOPES, Config

LONG = "a-long-enough-secret"
KEY = "[[edge.key]]\nid='a'\nsecret_env='A_KEY'\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "callboard.toml"
    path.write_text(text, encoding="utf-8")
    return path


def with_edge(text: str, folder: Path) -> Config:
    return load(write(folder, f"[edge]\n{text}\n"), {})


@pytest.mark.promise("CB-10")
def test_the_documented_default_key_works_on_loopback(tmp_path: Path) -> None:
    config = with_edge("docs = true", tmp_path)
    keys = resolve_keys(config, {})

    assert listens_on_loopback_only(config)
    assert [key.id for key in keys] == ["relay"]


@pytest.mark.promise("CB-40")
def test_who_names_hosts_to_serve_is_not_alone_on_the_machine(tmp_path: Path) -> None:
    config = with_edge('hosts = ["board.example"]', tmp_path)
    with pytest.raises(ConfigError, match="names hosts to serve and has no key") as refused:
        resolve_keys(config, {})

    assert not listens_on_loopback_only(config)
    assert "RELAY_API_KEY" in str(refused.value)
    assert resolve_keys(config, {"RELAY_API_KEY": LONG})


@pytest.mark.promise("CB-40")
@pytest.mark.parametrize(
    "secret",
    [
        *(None, "", "   ", "changeme", "password", PUBLIC_DEFAULT, "7chars!", f"{LONG}\n"),
        *(f"a {LONG}", "ä" * 16, "a" * 20, "ChangeMeChangeMe", "0123456789abcdef"),
    ],
)
def test_beyond_loopback_a_weak_secret_is_refused_without_being_shown(
    tmp_path: Path, secret: str | None
) -> None:
    config = with_edge('listen = ["0.0.0.0:8000"]', tmp_path)
    environ = {} if secret is None else {"RELAY_API_KEY": secret}
    with pytest.raises(ConfigError) as refused:
        resolve_keys(config, environ)

    assert "weak_or_missing_secret" in str(refused.value)
    assert "RELAY_API_KEY" in str(refused.value)
    assert not (secret and secret.strip() and secret.strip() in str(refused.value))


@pytest.mark.promise("CB-33", "CB-42")
def test_each_key_opens_only_what_it_was_given(tmp_path: Path) -> None:
    text = """
        listen = ["0.0.0.0:8000"]
        [[edge.key]]
        id = "bazi"
        secret_env = "BAZI_KEY"
        scopes = ["relay:callback"]
        children = ["child_bazi"]
    """
    keys = resolve_keys(with_edge(text, tmp_path), {"BAZI_KEY": LONG})

    assert keys[0].scopes == {"relay:callback"}
    assert keys[0].children == {"child_bazi"}
    assert LONG not in repr(keys)


@pytest.mark.parametrize("secret", ["", "  ", f"{LONG}\n"])
def test_even_on_loopback_a_blank_key_is_not_no_key(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigError, match="weak_or_missing_secret: the variable RELAY_API_KEY"):
        resolve_keys(with_edge("docs = true", tmp_path), {"RELAY_API_KEY": secret})


def test_a_configured_key_whose_variable_is_not_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the variable A_KEY is not set"):
        resolve_keys(load(write(tmp_path, KEY), {}), {})


def test_one_loopback_address_does_not_excuse_another(tmp_path: Path) -> None:
    config = with_edge('listen = ["127.0.0.1:8000", "0.0.0.0:8000"]', tmp_path)
    with pytest.raises(ConfigError, match="beyond loopback and has no key"):
        resolve_keys(config, {})


@pytest.mark.promise("CB-40")
def test_the_relay_s_key_comes_from_its_own_variable(tmp_path: Path) -> None:
    config = with_edge('listen = ["0.0.0.0:8000"]', tmp_path)
    keys = resolve_keys(config, {"RELAY_API_KEY": LONG})

    assert [key.id for key in keys] == ["relay"]
    assert keys[0].secret_hash == hashlib.sha256(LONG.encode()).digest()
    assert keys[0].scopes == set(SCOPES)


def test_two_variables_that_disagree_are_refused(tmp_path: Path) -> None:
    config = load(write(tmp_path, KEY.replace("'a'", "'relay'")), {})
    with pytest.raises(ConfigError, match="RELAY_API_KEY and A_KEY both hold the key 'relay'"):
        resolve_keys(config, {"A_KEY": LONG, "RELAY_API_KEY": LONG + "2"})


def test_two_keys_with_one_secret_are_refused(tmp_path: Path) -> None:
    config = load(write(tmp_path, KEY), {})
    with pytest.raises(ConfigError, match="A_KEY and RELAY_API_KEY hold the same secret"):
        resolve_keys(config, {"A_KEY": LONG, "RELAY_API_KEY": LONG})


def test_two_keys_with_one_id_are_refused(tmp_path: Path) -> None:
    text = '[[edge.key]]\nid="a"\nsecret_env="A"\n[[edge.key]]\nid="a"\nsecret_env="B"\n'
    with pytest.raises(ConfigError, match="'a' is given twice"):
        resolve_keys(with_edge(text, tmp_path), {"A": LONG, "B": LONG + "2"})
