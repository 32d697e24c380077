"""What goes over the wire comes back the same, whatever somebody calls himself."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from schemas import subjects
from schemas.base import Address, Job, Message, Request, Topic, reply_type, tag_of, token
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.record import Delta, Record, RunFailed, RunRecord
from schemas.relay import Executed, Send, Sent
from tests.unit.hostile import keys, texts

LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
HASHED = re.compile(r"h-[0-9a-f]{48}")

actors = st.from_regex(subjects.ACTOR_NAME, fullmatch=True)
moments = st.datetimes(
    datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)
)  # what every JSON reader can read
messages = st.one_of(
    st.builds(Delta, text=texts, run=texts, attempt=st.integers(0, 9), n=st.integers(0, 2**53)),
    st.builds(RunFailed, run=texts, reason=texts, attempts=st.integers(0, 9)),
    st.builds(Executed, task_id=texts, result=st.none() | texts | st.integers(-(2**53), 2**53)),
)
envelopes = st.builds(
    seal,
    messages,
    id=texts,
    source=texts,
    subject=texts,
    time=moments,
    correlationid=texts,
    causationid=texts,
    replyto=texts,
    principal=texts,
    bodyhash=texts,
    runid=texts,
    attempt=st.integers(0, 2**31),
    number=st.integers(0, 2**31),
    topic=texts,
    expires=st.none() | moments,
    reminder=texts,
    generation=st.integers(0, 2**63 - 1),
    due=st.none() | moments,
)

decode = msgspec.json.Decoder(Envelope[Delta | RunFailed | Executed]).decode


# -- tokens and subjects ----------------------------------------------------------------------


@given(keys)
def test_any_key_becomes_one_legal_token(key: str) -> None:
    assert LEGAL.fullmatch(token(key))


@given(keys)
def test_a_key_is_its_own_token_where_it_can_be(key: str) -> None:
    plain = LEGAL.fullmatch(key) and not HASHED.fullmatch(key)

    assert (token(key) == key) == bool(plain)


@given(keys, keys)
@example("a", "a\n")
@example("\u00e9", "e\u0301")
@example("a", "A")
def test_two_keys_never_share_a_token(one: str, other: str) -> None:
    assume(one != other)

    assert token(one) != token(other)


@given(keys)
def test_nobody_can_take_the_token_of_a_hashed_key_by_its_name(key: str) -> None:
    taken = token(key)
    assume(taken != key)

    assert token(taken) != taken


@given(actors, keys, keys, st.integers(0, subjects.PRIORITIES - 1))
def test_every_subject_has_its_number_of_tokens_and_no_wildcard(
    actor: str, key: str, name: str, priority: int
) -> None:
    address = Address(actor, key)
    built = {
        subjects.mail(address): 3,
        subjects.work(actor, priority, key): 4,
        subjects.state(actor, token(key)): 3,
        subjects.event(Topic(key, name)): 3,
        subjects.live(Topic(key, name)): 4,
        subjects.run(key): 2,
        subjects.timer(address, name): 4,
        subjects.dead(actor, token(key)): 3,
    }

    assert {subject: len(subject.split(".")) for subject in built} == built
    assert all(LEGAL.fullmatch(part) for subject in built for part in subject.split("."))
    assert all(len(subject) < 200 for subject in built)


@given(actors, keys)
def test_the_key_is_found_again_in_a_subject(actor: str, key: str) -> None:
    found = {
        subjects.key_token(subjects.mail(Address(actor, key))),
        subjects.key_token(subjects.work(actor, 1, key)),
        subjects.key_token(subjects.state(actor, token(key))),
    }

    assert found == {token(key)}


@given(actors, keys)
def test_a_key_has_one_shard_and_its_token_the_same_while_it_is_plain(actor: str, key: str) -> None:
    shard = subjects.shard_of(actor, key)

    assert shard in range(subjects.SHARDS)
    assert token(key) != key or subjects.shard_of(actor, token(key)) == shard


# -- envelopes --------------------------------------------------------------------------------


@given(envelopes)
def test_an_envelope_comes_back_as_it_went(envelope: Envelope[Any]) -> None:
    assert decode(encode(envelope)) == envelope


@given(envelopes)
def test_an_envelope_can_be_read_without_knowing_its_message(envelope: Envelope[Any]) -> None:
    sealed = decode_any(encode(envelope))
    message = msgspec.json.decode(sealed.data, type=type(envelope.data))

    assert message == envelope.data
    assert sealed.type == tag_of(envelope.data)


@given(texts, st.sampled_from(["\ud800", "a\udfffb"]))
def test_half_a_character_is_refused_when_written_and_when_read(text: str, half: str) -> None:
    whole = encode(seal(Delta(text="?"), id="i", source="s", subject="k"))
    broken = whole.replace(b"?", half.encode("ascii", "backslashreplace"))

    with pytest.raises(ValueError, match="surrogate"):
        encode(seal(Delta(text=text + half), id="i", source="s", subject="k"))
    with pytest.raises(msgspec.MsgspecError):
        decode(broken)


def test_fields_nobody_knows_are_ignored() -> None:
    sealed = seal(Delta(text="t"), id="i", source="s", subject="k")
    newer = msgspec.json.decode(encode(sealed))
    newer["fromthefuture"] = {"a": [1]}
    newer["data"]["colour"] = "red"

    assert decode(msgspec.json.encode(newer)) == sealed


def test_fields_that_are_missing_have_their_defaults() -> None:
    least = {
        "specversion": "1.0",
        "id": "i",
        "source": "s",
        "type": "run.delta",
        "subject": "k",
        "time": "2026-11-20T12:00:00Z",
        "datacontenttype": "application/json",
        "data": {"type": "run.delta", "text": "t"},
    }

    read = decode(msgspec.json.encode(least))

    assert read.data == Delta(text="t", run="", attempt=0, n=0)
    assert (read.replyto, read.attempt, read.expires) == ("", 0, None)


def test_what_was_not_set_is_not_sent() -> None:
    sent = msgspec.json.decode(encode(seal(Delta(text="t"), id="i", source="s", subject="k")))

    assert sent["data"] == {"type": "run.delta", "text": "t"}
    assert set(sent) == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
    }  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"never.heard_of","text":"t"}',
        b'{"type":7,"text":"t"}',
        b'{"text":"t"}',
        b'{"type":"run.delta"}',
        b'{"type":"run.delta","text":7}',
        b"[]",
        b"null",
        b"",
        b"{",
        b'"\\ud800"',
    ],
)
def test_a_message_that_cannot_be_understood_raises_and_is_never_guessed(data: bytes) -> None:
    whole = encode(seal(Delta(text="t"), id="i", source="s", subject="k"))
    body = whole.replace(b'{"type":"run.delta","text":"t"}', data)

    with pytest.raises(msgspec.MsgspecError):
        decode(body)


@given(st.binary(max_size=200))
def test_noise_is_refused_with_an_error_that_is_expected(noise: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode(noise)


def test_a_body_nested_beyond_all_measure_is_refused() -> None:
    whole = encode(seal(Executed(task_id="t", result="?"), id="i", source="s", subject="k"))
    deep = whole.replace(b'"?"', b"[" * 100_000 + b"]" * 100_000)

    with pytest.raises(RecursionError):
        decode(deep)


# -- records and definitions ------------------------------------------------------------------


def test_records_are_read_tolerantly_too() -> None:
    older = msgspec.json.decode(b'{"stream":"s","done":3,"key":"k","new":1}', type=Record)
    run = msgspec.json.decode(b'{"job":"child/a","new":1}', type=RunRecord)

    assert (older.replies, older.timers, older.written) == ([], {}, None)
    assert (run.state, run.attempt) == ("open", 0)


def test_a_message_knows_its_name_and_its_answer() -> None:
    class Plain(Message, tag="plain.said"): ...

    class Ask(Request[Sent], tag="plain.ask"): ...

    class Do(Job[Executed], tag="plain.do"): ...

    assert tag_of(Plain) == tag_of(Plain()) == "plain.said"
    assert [reply_type(each) for each in (Send, Ask, Do, Plain)] == [Sent, Sent, Executed, None]


def test_facts_may_be_given_and_time_is_now_unless_told() -> None:
    before = datetime.now(UTC)
    told = seal(Delta(text="t"), id="i", source="s", subject="k", time=before - timedelta(days=1))
    untold = seal(Delta(text="t"), id="i", source="s", subject="k")

    assert told.time == before - timedelta(days=1)
    assert untold.time >= before
