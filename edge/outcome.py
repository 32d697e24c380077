"""What became of a batch, as the store has it: right even if nothing was heard of it live."""

from collections.abc import Mapping

import msgspec

from edge.problem import Refusal
from runtime.bus import Bus
from runtime.errors import Unavailable
from schemas import subjects
from schemas.base import Address, tag_of, token
from schemas.conversation import BatchState, MessageAnswered
from schemas.envelope import UNREADABLE, decode_any
from schemas.model import history_topic
from schemas.record import Record

ANSWERED = tag_of(MessageAnswered)

_decode_record = msgspec.json.Decoder(Record).decode
_decode_state = msgspec.json.Decoder(BatchState).decode
_decode_answered = msgspec.json.Decoder(MessageAnswered).decode


async def find_batch(bus: Bus, address: Address) -> BatchState | None:
    """Return how a batch stands, None if it has not begun.

    Raises Refusal 409 `answer_forgotten` if its time is over, BusFault.
    """
    stored = await bus.last(subjects.state(address.actor, token(address.key)))
    if stored is None:
        return None
    try:
        record = _decode_record(stored.data)
        if record.data:
            return _decode_state(record.data)
    except UNREADABLE:
        # Whoever keeps it stands still and says so; a client can only come again.
        raise Unavailable(f"the state of {address} is not readable") from None
    detail = "this was done before, and its answer is no longer kept"
    raise Refusal(409, "answer_forgotten", detail)


async def find_answers(bus: Bus, batch: str, state: BatchState) -> Mapping[str, MessageAnswered]:
    """Return the whole answers of a batch, by task: each of the run that its task ended with.

    Raises BusFault.
    """
    runs = {task.run: name for name, task in state.tasks.items()}
    found: dict[str, MessageAnswered] = {}
    subject = subjects.event(history_topic(state.conversation))
    async for page in bus.pages(subject, after=state.after):
        for stored in page:
            try:
                envelope = decode_any(stored.data)
                if envelope.type != ANSWERED:
                    continue
                said = _decode_answered(envelope.data)
            except UNREADABLE:
                continue
            if said.batch == batch and said.run in runs:
                found[runs[said.run]] = said
        if len(found) == len(runs):
            break
    return found
