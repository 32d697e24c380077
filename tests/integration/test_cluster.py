"""Three nodes with nats/cluster.conf, and what nats/accounts.conf lets each kind of process do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.bus import Bus, PubAck
from runtime.connection import Connection
from runtime.errors import Unavailable, Unknown
from runtime.host import patiently
from runtime.pull import ensure_consumer
from runtime.streams import ensure_streams
from tests.cluster import PASSWORDS, Cluster, login

MAY = [
    ("edge", "PUB mail.master.t1"),
    ("edge", "PUB dead.far.t1"),
    ("edge", "PUB $JS.API.DIRECT.GET.BUS.state.master.t1"),
    ("edge", "SUB live.event.>"),
    ("edge", "PUB seen.conversation.c1"),
    ("edge", "SUB seen.conversation.*"),
    ("host", "SUB live.event.approval.a1"),
    ("edge", "PUB $JS.API.CONSUMER.CREATE.BUS.work_far_1.work.far.1.t1"),
    ("edge", "PUB $JS.API.CONSUMER.MSG.NEXT.BUS.work_far_1"),
    ("edge", "PUB $JS.ACK.BUS.work_far_1.1.1.1.1.0"),
    ("edge", "PUB $O.files.C.a"),
    ("edge", "PUB $O.files.M.a"),
    ("edge", "PUB $JS.API.DIRECT.GET.OBJ_files.$O.files.M.a"),
    ("edge", "PUB $JS.API.DIRECT.GET.OBJ_files"),
    ("edge", "PUB $JS.API.STREAM.MSG.GET.OBJ_files"),
    ("host", "PUB $O.files.C.a"),
    ("host", "PUB $O.files.M.a"),
    ("host", "PUB $JS.API.DIRECT.GET.OBJ_files"),
    ("host", "PUB $JS.API.STREAM.MSG.GET.OBJ_files"),
    ("host", "PUB state.master.t1"),
    ("host", "PUB $JS.API.CONSUMER.LEADER.STEPDOWN.BUS.mail_master_3"),
    ("host", "PUB $JS.ACK.BUS.mail_master_3.1.1.1.1.0"),
    ("host", "PUB _INBOX_edge.a.1"),
    ("admin", "PUB $JS.API.STREAM.PURGE.BUS"),
    ("admin", "PUB mail.master.t1"),
    ("admin", "PUB work.child.1.t1"),
    ("admin", "PUB run.r1"),
    ("admin", "PUB dead.SETTLED.12"),
    ("admin", "PUB event.system.audit"),
    ("admin", "PUB $KV.config.deployments"),
    ("host", "PUB $KV.config.deployments"),
]
MAY_NOT = [
    ("edge", "PUB state.master.t1"),
    ("edge", "PUB event.task.t1"),
    ("edge", "PUB run.r1"),
    ("edge", "PUB work.child.1.t1"),
    ("edge", "PUB mail.3.master.t1"),
    ("edge", "PUB $KV.config.deployments"),
    ("edge", "PUB $JS.API.CONSUMER.CREATE.BUS.mail_master_3.mail.3.master.t1"),
    ("edge", "PUB $JS.API.CONSUMER.RESET.BUS.mail_master_3"),
    ("edge", "PUB $JS.API.CONSUMER.UNPIN.BUS.mail_master_3"),
    ("edge", "PUB $JS.API.CONSUMER.LEADER.STEPDOWN.BUS.mail_master_3"),
    ("host", "PUB $JS.API.STREAM.LEADER.STEPDOWN.BUS"),
    ("edge", "PUB $JS.API.STREAM.CREATE.BUS"),
    ("edge", "SUB mail.>"),
    ("host", "PUB seen.conversation.c1"),
    ("host", "SUB live.event.>"),
    ("edge", "SUB _INBOX_host.>"),
    ("edge", "SUB >"),
    ("host", "PUB $KV.identities.key.k1"),
    ("host", "PUB $JS.API.STREAM.PURGE.BUS"),
    ("host", "PUB $JS.API.STREAM.DELETE.BUS"),
    ("host", "PUB $JS.API.STREAM.PURGE.OBJ_files"),
    ("edge", "PUB $JS.API.STREAM.PURGE.OBJ_files"),
    ("host", "PUB $JS.API.STREAM.UPDATE.BUS"),
    ("host", "SUB _INBOX_edge.>"),
    ("host", "SUB $KV.identities.>"),
    ("admin", "PUB state.master.t1"),
    ("admin", "PUB dead.master.t1"),
    ("admin", "PUB event.task.t1"),
    ("admin", "PUB $JS.ACK.BUS.mail_master_3.1.1.1.1.0"),
    ("nobody", "PUB mail.master.t1"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    nats_server_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    """Three nodes that have found each other and chosen a leader."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), nats_server_binary)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest.fixture
def port(cluster: Cluster) -> int:
    """Where clients of the first node connect."""
    return cluster.nodes[0].port


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
def test_each_kind_of_process_may_do_its_work(port: int, user: str, line: str) -> None:
    assert complaint(port, user, line) == ""


@pytest.mark.parametrize(("user", "line"), MAY_NOT)
def test_no_kind_of_process_may_do_more(port: int, user: str, line: str) -> None:
    said = complaint(port, user, line)

    assert "Permissions Violation" in said or "Authorization Violation" in said


@pytest.mark.parametrize("user", sorted(PASSWORDS))
def test_a_wrong_password_is_refused(port: int, user: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(f'CONNECT {{"user":"{user}","pass":"wrong"}}\r\nPING\r\n'.encode())
        with link.makefile() as said:
            answers = said.read()

    assert "Authorization Violation" in answers


async def agree(bus: Bus) -> None:
    await ensure_streams(bus, replicas=3)


async def test_hosts_that_start_together_agree_on_the_streams(
    nats_server_binary: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, nats_server_binary)
    links = [Connection([url], **login("host")) for url in cluster.urls * 4]
    try:
        await cluster.start()
        await asyncio.gather(*(link.open() for link in links))
        buses = [Bus(link) for link in links]
        await asyncio.gather(*(patiently(bus, partial(agree, bus)) for bus in buses))
    finally:
        await asyncio.gather(*(link.close() for link in links))
        await cluster.stop()

    assert len({bus.created for bus in buses}) == 1


async def test_streams_are_on_all_three_nodes_and_an_edge_may_make_consumers_of_jobs(
    cluster: Cluster,
) -> None:
    link = Connection(cluster.urls, **login("host"))
    await link.open()
    try:
        bus = Bus(link)
        await ensure_streams(bus, replicas=3)
        edge = Connection(cluster.urls, **login("edge"))
        await edge.open()
        try:
            await ensure_consumer(Bus(edge), "work_far_1", filter_subject="work.far.1.*")
        finally:
            await edge.close()
        info = await bus.api("STREAM.INFO.BUS")
    finally:
        await link.close()

    found = info["cluster"]

    assert len({found["leader"], *(each["name"] for each in found["replicas"])}) == 3
    assert info["config"]["compression"] == "none"


async def test_who_may_not_create_streams_says_what_it_waits_for(
    nats_server_binary: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, nats_server_binary)
    link = Connection(cluster.urls, **login("edge"))
    try:
        await cluster.start()
        await link.open()
        with pytest.raises(Unavailable, match="stream BUS is missing; a host creates it"):
            await ensure_streams(Bus(link), replicas=3)
    finally:
        await link.close()
        await cluster.stop()


async def test_a_message_that_is_being_stored_may_be_sent_again_under_its_id(
    cluster: Cluster,
) -> None:
    link = Connection(cluster.urls, **login("host"))
    await link.open()
    try:
        bus = Bus(link)
        await ensure_streams(bus, replicas=3)
        outcomes: list[PubAck | BaseException] = []
        for number in range(50):
            headers = {"Nats-Msg-Id": f"twice-{number}"}
            tries = [bus.publish("mail.master.t1", b"{}", headers=headers) for _ in range(8)]
            outcomes += await asyncio.gather(*tries, return_exceptions=True)
    finally:
        await link.close()
    faults = [one for one in outcomes if isinstance(one, BaseException)]

    assert len(outcomes) - len(faults) >= 50
    assert {type(fault) for fault in faults} <= {Unknown}
