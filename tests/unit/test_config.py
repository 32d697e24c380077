"""The configuration file: read whole, refused whole, with the place and the cure."""

from datetime import timedelta
from pathlib import Path

import pytest

from runtime.config import Config, duration, load, split_address, unused_environment
from runtime.errors import ConfigError
from runtime.keys import PUBLIC_DEFAULT, listens_on_loopback_only, resolve_keys

ROOT = Path(__file__).parents[2]
LONG = "a-long-enough-secret"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "callboard.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as refused:
        load(write(folder, text), {})
    return str(refused.value)


@pytest.mark.parametrize("name", ["local.toml", "production.toml"])
def test_the_files_we_ship_are_good(name: str) -> None:
    config = load(ROOT / "config" / name, {})

    assert [actor.name for actor in config.actor] == ["master", "child"]


def test_durations_are_read_as_they_are_said(tmp_path: Path) -> None:
    text = """
        [[actor]]
        name = "a"
        type = "x:Y"
        mail_ttl = "36h"
        deadline = "250ms"
    """
    actor = load(write(tmp_path, text), {}).actor[0]

    assert actor.mail_ttl == timedelta(hours=36)
    assert actor.deadline == timedelta(milliseconds=250)
    assert actor.lifetime == timedelta(days=30)


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5s", "0s", "inf", "5S", "٥s", None, 5])
def test_what_is_not_a_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[nats\n", "not valid TOML"),
        ("", "the file is empty"),
        (b"\xef\xbb\xbf[nats]\n", "byte order mark"),
        ("[nats]\n".encode("utf-16"), "byte order mark"),
        (b'[nats]\nurl = "\xff"\n', "not UTF-8"),
        ("x" * (1024 * 1024 + 1), "larger than"),
        ("[nats]\nurl = 'a'\nurl = 'b'\n", "not valid TOML"),
        ("[edge]\nmax_conections = 5\n", ":2: edge.max_conections: unknown key; did you mean"),
        ("[edgy]\nlisten = []\n", "did you mean 'edge'?"),
        (
            "[[actor]]\nname='a'\ntype='x:Y'\nconcurency=3\n",
            ":4: actor[0].concurency: unknown key; did you mean",
        ),
        ("[nats]\nport = 65536\n", ":2: nats.port: expected `int` <= 65535"),
        ("[nats]\nport = 'abc'\n", ":2: nats.port: expected `int`, got `str`"),
        ("[nats]\nport = -1\n", "nats.port: expected `int` >= 0"),
        ("[nats]\nsync = 'never'\n", ":2: nats.sync: 'never' is not a duration"),
        ("[edge]\nmax_connections = 0\n", "expected `int` >= 1"),
        ("[edge]\nmax_connections = 1e12\n", "edge.max_connections: expected `int`"),
        ("[edge]\nlisten = []\n", "edge.listen: expected `array` of length >= 1"),
        ("[edge]\nlisten = ['8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = [':8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['127.0.0.1:99999']\n", 'expected "host:port"'),
        ("[log]\nlevel = 'loud'\n", "log.level: invalid enum value 'loud'"),
        ("[[actor]]\nname='A'\ntype='x:Y'\n", ":2: actor.name: 'A': expected a lower-case"),
        ("[[actor]]\nname='a.b'\ntype='x:Y'\n", "actor.name: 'a.b'"),
        ("[[actor]]\nname='a'\ntype='x:Y'\n[[actor]]\nname='a'\ntype='x:Y'\n", "deployed twice"),
        ("[[actor]]\nname='a'\n", "missing required field `type`"),
        ("[[actor]]\nname='a'\ntype='x:Y'\nconcurrency=0\n", "expected `int` >= 1"),
        ("[[actor]]\nname='a'\ntype='x:Y'\ndeadline='5 minutes'\n", ":4: actor.deadline"),
        ("actor = 3\n", "actor: expected `array`"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_reason(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    message = refusal(tmp_path, text)

    assert said in message
    assert "\n" not in message
    assert str(tmp_path) in message


def test_a_missing_file_a_folder_and_a_loop_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    said = []
    for path in (tmp_path / "none.toml", tmp_path, loop):
        with pytest.raises(ConfigError) as refused:
            load(path, {})
        said.append(str(refused.value))

    assert "cannot be read" in said[0]
    assert "is a folder" in said[1]
    assert "cannot be read" in said[2]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[nats]\nurl = 'nats://file:4222'\n")
    environ = {
        "CALLBOARD_NATS_URL": "nats://environment:4222",
        "CALLBOARD_LISTEN": "127.0.0.1:8008, 127.0.0.1:8000",
        "LOG_LEVEL": "DEBUG",
    }
    config = load(path, environ)

    assert config.nats.url == "nats://environment:4222"
    assert config.edge.listen == ["127.0.0.1:8008", "127.0.0.1:8000"]
    assert config.log.level == "debug"


@pytest.mark.promise("AC-25", "AC-26", "AC-27", "AC-30")
def test_settings_of_stores_we_do_not_need_are_reported_by_name() -> None:
    environ = {"DB_HOST": "postgres", "POSTGRES_PASSWORD": "hidden", "REDIS_HOST": "redis"}

    assert unused_environment(environ) == ["DB_HOST", "POSTGRES_PASSWORD", "REDIS_HOST"]


def with_edge(text: str, folder: Path) -> Config:
    return load(write(folder, f"[edge]\n{text}\n"), {})


@pytest.mark.promise("CB-10")
def test_the_documented_default_key_works_on_loopback(tmp_path: Path) -> None:
    config = with_edge("docs = true", tmp_path)
    keys = resolve_keys(config, {})

    assert listens_on_loopback_only(config)
    assert [key.id for key in keys] == ["relay"]


@pytest.mark.promise("CB-40")
@pytest.mark.parametrize(
    "secret",
    [None, "", "   ", "changeme", "password", PUBLIC_DEFAULT, "7chars!", f"{LONG}\n", f"a {LONG}"],
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


def test_two_keys_with_one_id_are_refused(tmp_path: Path) -> None:
    text = '[[edge.key]]\nid="a"\nsecret_env="A"\n[[edge.key]]\nid="a"\nsecret_env="B"\n'
    with pytest.raises(ConfigError, match="'a' is given twice"):
        resolve_keys(with_edge(text, tmp_path), {"A": LONG, "B": LONG + "2"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:80", ("::1", 80)), ("host:0", ("host", 0))],
)
def test_addresses_are_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected
