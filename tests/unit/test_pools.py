"""Connections to upstreams in several small pools, of which as many are kept as are used."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from actors.fakes.upstream import Upstream, fake
from actors.models.pools import IN_A_POOL, Pools

ASK = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with fake("openai", fault="hold-middle=1", tokens=3) as upstream:
        yield upstream


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(30.0, ssl.create_default_context())
    yield pools
    await pools.aclose()


async def ask(client: httpx.AsyncClient, upstream: Upstream) -> httpx.Response:
    request = client.build_request("POST", f"{upstream.url}/chat/completions", json=ASK)
    return await client.send(request, stream=True)


async def test_answers_are_spread_over_pools_and_the_empty_ones_go(
    upstream: Upstream, pools: Pools
) -> None:
    client = httpx.AsyncClient(transport=pools, trust_env=False)
    count = 2 * IN_A_POOL + 1
    answers = await asyncio.gather(*(ask(client, upstream) for _ in range(count)))
    most = [pool.busy for pool in pools._pools]
    upstream.open()
    texts = [(await answer.aread()).decode() for answer in answers]
    for answer in answers:
        await answer.aclose()
    left = [pool.busy for pool in pools._pools]

    assert most == [IN_A_POOL, IN_A_POOL, 1]
    assert all(text.rstrip().endswith("data: [DONE]") for text in texts)
    assert left == [0]


async def test_a_request_that_fails_keeps_no_place(pools: Pools) -> None:
    client = httpx.AsyncClient(transport=pools, trust_env=False)
    with pytest.raises(httpx.ConnectError):
        await client.get("http://127.0.0.1:1/")

    assert [pool.busy for pool in pools._pools] == [0]


async def test_an_answer_that_is_given_up_keeps_no_place(upstream: Upstream, pools: Pools) -> None:
    client = httpx.AsyncClient(transport=pools, trust_env=False)
    answer = await ask(client, upstream)
    busy = pools._pools[0].busy
    await answer.aclose()

    assert (busy, pools._pools[0].busy) == (1, 0)
