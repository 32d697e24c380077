"""The configuration file: read whole, refused whole, with the place and the cure."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.config import duration, load, split_address, unused_environment
from runtime.errors import ConfigError
from runtime.lines import find_lines

ROOT = Path(__file__).parents[2]


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

    shipped = {"master", "child", "session", "batch", "completion", "completion-batch", "approval"}
    assert {actor.name for actor in config.actor} >= shipped


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


@pytest.mark.parametrize(
    "text",
    ["", "5", "5 minutes", "-5s", "0s", "inf", "nans", "5S", "٥s", "1e3s", "0.0001ms", None, 5],
)
def test_what_is_not_a_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["3651d", "9" * 400 + "d"])
def test_what_is_longer_than_ten_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too long; expected at most 3650d"):
        duration(text)


ACTOR = "[[actor]]\nname='a'\ntype='x:Y'\n"
KEY = "[[edge.key]]\nid='a'\nsecret_env='A_KEY'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[nats\n", ":1: not valid TOML"),
        ("[nats]\nport = \n", ":2: not valid TOML: Invalid value"),
        ("# only a comment\n", "the file is empty"),
        ("x = " + "[" * 10_000, "nested too deeply"),
        ("x = " + "1" * 5000, "a number is too long"),
        (b"[nats]\nurl = '\x00'\n", "NUL bytes"),
        ("[nats]\n".encode("utf-16-le"), "may be UTF-16"),
        ("", "the file is empty"),
        (b"\xef\xbb\xbf[nats]\n", "byte order mark"),
        ("[nats]\n".encode("utf-16"), "byte order mark"),
        (b'[nats]\nurl = "\xff"\n', "not UTF-8"),
        ("x" * (1024 * 1024 + 1), "larger than"),
        ("[nats]\nurl = 'a'\nurl = 'b'\n[edge]\n", ":3: not valid TOML: Cannot overwrite"),
        ("[edge]\nmax_conections = 5\n", ":2: edge.max_conections: unknown key; did you mean"),
        ("[edgy]\nlisten = []\n", "did you mean 'edge'?"),
        (
            "[[actor]]\nname='a'\ntype='x:Y'\nconcurency=3\n",
            ":4: actor.concurency: unknown key; did you mean 'concurrency'?",
        ),
        ("[nats]\nport = 65536\n", ":2: nats.port: 65536: expected a whole number <= 65535"),
        ("[nats]\nport = 'abc'\n", ":2: nats.port: 'abc': expected a whole number"),
        ("[nats]\nport = -1\n", "nats.port: -1: expected a whole number >= 0"),
        ("[nats]\nsync = 'never'\n", ":2: nats.sync: 'never' is not a duration"),
        ("[host]\ncount = 0\n", "host.count: 0: expected a whole number >= 1"),
        ("[host]\ncount = 65\n", "host.count: 65: expected a whole number <= 64"),
        ("[host]\nname = 'a\u0007'\n", "not valid TOML"),
        ('[host]\nname = "a\\u0007"\n', "at most 64 characters that can be shown"),
        (f"[host]\nname = '{'x' * 65}'\n", "at most 64 characters that can be shown"),
        ("[host]\nblock_limit = 30\n", ":2: host.block_limit: 30 is not a duration"),
        ("[host]\nblock_limit = '1s'\n", ":2: host.block_limit: is shorter than expected: 2s"),
        ("[edge]\nmax_connections = 0\n", "0: expected a whole number >= 1"),
        ("[edge]\nmax_connections = -1\n", "-1: expected a whole number >= 1"),
        (
            "[edge]\nmax_connections = 1e12\n",
            "edge.max_connections: 1000000000000.0: expected a whole number",
        ),
        ("[edge]\nlisten = []\n", "edge.listen: expected a list of length >= 1"),
        ("[edge]\nlisten = ['8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = [':8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['127.0.0.1:99999']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['127.0.0.1:0']\n", "expected a port from 1 to 65535"),
        ("[edge]\nlisten = ['::1:8000']\n", 'expected "[address]:port"'),
        ("[edge]\nlisten = ['*:8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['1.2.3.4.5:8000']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['a:" + "0" * 5000 + "1']\n", 'expected "host:port"'),
        ("[edge]\nlisten = ['a:1', 'a:1']\n", "'a:1' is there twice"),
        ("[edge]\nlisten = 'a:1'\n", "edge.listen: 'a:1': expected a list"),
        ("[edge]\nhosts = ['http://a']\n", "expected a host name, without scheme"),
        ("[edge]\nopen_reads = 1\n", "edge.open_reads: 1: expected true or false"),
        ("[host]\nrun = ['A B']\n", "host.run: 'A B': expected a lower-case"),
        ('[nats]\n"a\\nb" = 1\n', ":2: nats.a\\nb: unknown key; known here: url, data"),
        ("nats = 5\n", ":1: nats: 5: expected a table [nats]"),
        ("[nats]\nurl = 'http://h:1'\n", 'expected "nats://host:4222"'),
        ("[nats]\nurl = 'nats://h:1,nats://h:99999'\n", 'expected "nats://host:4222"'),
        ("[nats]\nurl = 'nats://'\n", 'expected "nats://host:4222"'),
        ("[nats]\ndata = ' '\n", "nats.data: ' ': expected the name of a folder"),
        ("[nats]\nsync = 'default'\n", "is not a duration"),
        ("[nats]\nsync = '1d'\n", "nats-server knows no days"),
        ("[nats]\nuser = 'a'\n", "nats.password_env is missing"),
        ("[nats]\nuser = 'a'\ncreds = 'b'\n", ":3: nats.creds: there is nats.user too"),
        ("[nats]\ncreds = 'nowhere.creds'\n", "nats.creds: is not a file"),
        (ACTOR + "mail_ttl='250ms'\n", ":4: actor.mail_ttl: is shorter than a second"),
        (ACTOR + "deadline='9999999d'\n", ":4: actor.deadline: '9999999d' is too long"),
        (ACTOR + ACTOR.replace("'a'", "'b'") + "attempts=0\n", ":7: actor.attempts: 0: expected"),
        ("[[actor]]\nname='a'\ntype='nonsense'\n", ":3: actor.type: 'nonsense': expected"),
        ("[actor]\nname='a'\n", "actor: expected tables [[actor]]"),
        (KEY + "scopes=['relay:sned']\n", ":4: edge.key.scopes: 'relay:sned': expected some of"),
        (KEY + "scopes=[]\n", "the key would open nothing"),
        (KEY + "children=['']\n", "edge.key.children: holds an empty name"),
        (KEY + "tier='king'\n", ":4: edge.key.tier: 'king': expected one of user, vip, agent"),
        (KEY.replace("'a'", "''"), ":2: edge.key.id: ''"),
        (KEY + KEY, ":5: edge.key.id: 'a' is given twice"),
        (
            "[log]\nlevel = 'loud'\n",
            "log.level: 'loud': expected one of debug, info, warning, error",
        ),
        ("[[actor]]\nname='A'\ntype='x:Y'\n", ":2: actor.name: 'A': expected a lower-case"),
        ("[[actor]]\nname='a.b'\ntype='x:Y'\n", "actor.name: 'a.b'"),
        (
            "[[actor]]\nname='a'\ntype='x:Y'\n[[actor]]\nname='a'\ntype='x:Y'\n",
            ":5: actor.name: 'a' is given twice",
        ),
        ("[[actor]]\nname='a'\n", ":1: actor.type: is missing"),
        ("[[actor]]\nname='a'\ntype='x:Y'\nconcurrency=0\n", ":4: actor.concurrency: 0"),
        ("[[actor]]\nname='a'\ntype='x:Y'\ndeadline='5 minutes'\n", ":4: actor.deadline"),
        ("actor = 3\n", "actor: 3: expected tables [[actor]]"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_reason(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    message = refusal(tmp_path, text)

    assert said in message
    assert "\n" not in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    "text",
    [
        "[nats]\nurl = 'nats://me:{0}@h:4222'\n",
        "[nats]\nuser = 'me'\npassword_env = '{0}'\n",
        "[nats]\npassword = '{0}'\n",
        "[[edge.key]]\nid = 'a'\nsecret = '{0}'\n",
        "[[edge.key]]\nid = 'a'\nsecret_env = '{0}'\n",
        "[[edge.key]]\nid = 'a'\nsecret_env = ['{0}']\n",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text.format("hunter2-Hunter2"))

    assert "hunter2" not in message.lower()
    assert "\n" not in message


DECOYS = """# concurrency = 0
[nats]
data = TTT
[[actor]]
concurrency = 0
TTT
[[actor]]
name = "a"  # concurrency = 0
type = "x:Y"
options = { concurrency = 0, list = [
  1, # ]
] }
[[actor]]
name = "b"
type = "x:Y"
"concurrency" = 0
""".replace("TTT", "'" * 3)


def test_the_line_of_a_key_is_found_among_decoys() -> None:
    lines = find_lines(DECOYS)

    assert lines["actor", 0, "options"] == 10
    assert lines["actor", 1, "concurrency"] == 16
    assert ("actor", 0, "concurrency") not in lines


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_never_ends_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said = []
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ConfigError) as refused:
            load(path, {})
        said.append(str(refused.value))

    assert all("is a pipe or a device" in text for text in said)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\\x00b: cannot be read"):
        load(Path("a\0b"), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLBOARD_LISTEN", ","),
        ("CALLBOARD_LISTEN", "8000"),
        ("CALLBOARD_LISTEN", "127.0.0.1:0"),
        ("CALLBOARD_HOST_NAME", "x" * 65),
        ("CALLBOARD_NATS_URL", "localhost:4222"),
        ("CALLBOARD_NATS_URL", "nats://me:hunter2@h:4222"),
        ("LOG_LEVEL", "loud\n"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, ACTOR), {name: value})

    assert str(refused.value).startswith(f"{name}: ")
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_variable_overrides_nothing(tmp_path: Path) -> None:
    environ = {"CALLBOARD_NATS_URL": "", "CALLBOARD_LISTEN": "", "LOG_LEVEL": ""}

    assert load(write(tmp_path, ACTOR), environ) == load(write(tmp_path, ACTOR), {})


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:80", ("::1", 80)), ("host:0", ("host", 0))],
)
def test_addresses_are_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected
