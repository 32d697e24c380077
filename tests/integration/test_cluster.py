"""Three nodes with nats/cluster.conf, and what nats/accounts.conf lets each kind of process do."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.pull import ensure_consumer
from runtime.streams import ensure_streams

CONFIGURATION = Path(__file__).parents[2] / "nats" / "cluster.conf"
PASSWORDS = {"edge": "0123456789", "host": "12e4", "admin": "$word", "system": "s y s"}

MAY = [
    ("edge", "PUB mail.master.t1"),
    ("edge", "PUB dead.far.t1"),
    ("edge", "PUB $JS.API.DIRECT.GET.BUS.state.master.t1"),
    ("edge", "SUB live.event.>"),
    ("edge", "PUB $JS.API.CONSUMER.CREATE.BUS.work_far_1.work.far.1.t1"),
    ("edge", "PUB $JS.API.CONSUMER.MSG.NEXT.BUS.work_far_1"),
    ("edge", "PUB $JS.ACK.BUS.work_far_1.1.1.1.1.0"),
    ("host", "PUB state.master.t1"),
    ("host", "PUB $JS.ACK.BUS.mail_master_3.1.1.1.1.0"),
    ("host", "PUB _INBOX_edge.a.1"),
    ("admin", "PUB $JS.API.STREAM.PURGE.BUS"),
    ("admin", "PUB mail.master.t1"),
    ("admin", "PUB work.child.1.t1"),
    ("admin", "PUB run.r1"),
    ("admin", "PUB dead.SETTLED.12"),
    ("admin", "PUB event.system.audit"),
]
MAY_NOT = [
    ("edge", "PUB state.master.t1"),
    ("edge", "PUB event.task.t1"),
    ("edge", "PUB run.r1"),
    ("edge", "PUB work.child.1.t1"),
    ("edge", "PUB mail.3.master.t1"),
    ("edge", "PUB $KV.config.actor.master"),
    ("edge", "PUB $JS.API.CONSUMER.CREATE.BUS.mail_master_3.mail.3.master.t1"),
    ("edge", "PUB $JS.API.CONSUMER.RESET.BUS.mail_master_3"),
    ("edge", "PUB $JS.API.CONSUMER.UNPIN.BUS.mail_master_3"),
    ("edge", "PUB $JS.API.STREAM.CREATE.BUS"),
    ("edge", "SUB mail.>"),
    ("edge", "SUB _INBOX_host.>"),
    ("edge", "SUB >"),
    ("host", "PUB $KV.identities.key.k1"),
    ("host", "PUB $JS.API.STREAM.PURGE.BUS"),
    ("host", "PUB $JS.API.STREAM.DELETE.BUS"),
    ("host", "PUB $JS.API.STREAM.UPDATE.BUS"),
    ("host", "SUB _INBOX_edge.>"),
    ("host", "SUB $KV.identities.>"),
    ("admin", "PUB state.master.t1"),
    ("admin", "PUB dead.master.t1"),
    ("admin", "PUB event.task.t1"),
    ("admin", "PUB $JS.ACK.BUS.mail_master_3.1.1.1.1.0"),
    ("nobody", "PUB mail.master.t1"),
]


@pytest.fixture(scope="module")
def ports(nats_server_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """The client ports of three nodes that have found each other and chosen a leader."""
    clients, routes, monitors = free_ports(3), free_ports(3), free_ports(3)
    urls = ", ".join(f'"nats-route://route:r0ute@127.0.0.1:{port}"' for port in routes)
    with ExitStack() as nodes:
        started = []
        for n, (client, route, monitor) in enumerate(zip(clients, routes, monitors, strict=True)):
            settings = {
                "SERVER_NAME": f"node-{n}",
                "CLIENT_LISTEN": f"127.0.0.1:{client}",
                "ROUTE_LISTEN": f"127.0.0.1:{route}",
                "MONITOR_LISTEN": f"127.0.0.1:{monitor}",
                "STORE_DIR": tmp_path_factory.mktemp("node").as_posix(),
                "STORE_LIMIT": "1G",
                "ROUTE_PASSWORD": "r0ute",
                **{f"{user.upper()}_PASSWORD": word for user, word in PASSWORDS.items()},
            }
            quoted = {name: f'"{value}"' for name, value in settings.items()}
            environment = {**os.environ, **quoted, "ROUTES": f"[{urls}]"}
            started.append(nodes.enter_context(running(nats_server_binary, environment)))
            nodes.callback(started[-1].terminate)
        for node in started:
            read_until(node, "metadata leader")
        yield clients


def running(binary: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [binary, "--config", str(CONFIGURATION)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def read_until(node: subprocess.Popen[str], words: str) -> None:
    """Wait for a line of a node's log; the test's own time limit ends the wait."""
    assert node.stderr is not None
    lines = []
    for line in node.stderr:
        lines.append(line)
        if words in line:
            return
    pytest.fail("nats-server ended: " + "".join(lines))


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def complaint(port: int, user: str, line: str) -> str:
    """What the server says against one line of a user, or nothing."""
    password = PASSWORDS.get(user, "")
    body = " 0\r\n" if line.startswith("PUB") else " 1"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link, link.makefile() as said:
        login = f'CONNECT {{"user":"{user}","pass":"{password}","verbose":false}}\r\n'
        link.sendall(f"{login}{line}{body}\r\nPING\r\n".encode())
        for answer in said:
            if answer.startswith(("-ERR", "PONG")):
                return answer.removeprefix("PONG").strip()
    return "closed"


@pytest.mark.parametrize(("user", "line"), MAY)
def test_each_kind_of_process_may_do_its_work(ports: list[int], user: str, line: str) -> None:
    assert complaint(ports[0], user, line) == ""


@pytest.mark.parametrize(("user", "line"), MAY_NOT)
def test_no_kind_of_process_may_do_more(ports: list[int], user: str, line: str) -> None:
    said = complaint(ports[0], user, line)

    assert "Permissions Violation" in said or "Authorization Violation" in said


@pytest.mark.parametrize("user", sorted(PASSWORDS))
def test_a_wrong_password_is_refused(ports: list[int], user: str) -> None:
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=10) as link:
        link.sendall(f'CONNECT {{"user":"{user}","pass":"wrong"}}\r\nPING\r\n'.encode())
        with link.makefile() as said:
            answers = said.read()

    assert "Authorization Violation" in answers


async def test_streams_are_on_all_three_nodes_and_an_edge_may_make_consumers_of_jobs(
    ports: list[int],
) -> None:
    urls = [f"nats://127.0.0.1:{port}" for port in ports]
    link = Connection(urls, inbox="_INBOX_host", user="host", password=PASSWORDS["host"])
    await link.open()
    try:
        bus = Bus(link)
        await ensure_streams(bus, replicas=3)
        edge = Connection(urls, inbox="_INBOX_edge", user="edge", password=PASSWORDS["edge"])
        await edge.open()
        try:
            await ensure_consumer(Bus(edge), "work_far_1", filter_subject="work.far.1.*")
        finally:
            await edge.close()
        cluster = (await bus.api("STREAM.INFO.BUS"))["cluster"]
    finally:
        await link.close()

    assert len({cluster["leader"], *(each["name"] for each in cluster["replicas"])}) == 3
