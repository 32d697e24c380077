"""The echo model end to end: what is said, what is kept, what its batch is told."""

from schemas.model import Usage
from tests.integration.talking import talking


async def test_echo_says_the_last_message_again_and_counts() -> None:
    async with talking({"provider": "echo"}) as talk:
        result = await talk.ask("tell me more")
        said = await talk.deltas()
        kept = await talk.answers()
        finished = await talk.finished()

    assert (result.outcome, result.finish, result.excerpt) == ("answered", "stop", "tell me more")
    assert result.usage == Usage(prompt=3, completion=3)
    assert "".join(one.text for one in said) == "tell me more"
    assert [(one.text, one.usage) for one in kept] == [("tell me more", result.usage)]
    assert [(one.outcome, one.attempt, one.upstream) for one in finished] == [
        ("answered", 1, "built-in")
    ]
