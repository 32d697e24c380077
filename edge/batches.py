"""Async-Chat's batches: one form asks several models, and is looked at until all have answered.

Next: `edge/asked.py` for the form, `edge/remembered.py` for what is read.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from edge.asked import FIELDS, FILES, FOR_A_PICTURE, read_batch, read_conversation, said_by
from edge.asking import answer, ask_for, fingerprint, wait_for_bus
from edge.auth import CHAT_READ, CHAT_SEND, principal_of
from edge.batch_shapes import (
    DISPATCHED,
    AbortedView,
    Aborting,
    BatchAccepted,
    BatchForm,
    BatchView,
    TaskResult,
    TaskView,
)
from edge.body import LIMIT, decode, read_body
from edge.catalog import Catalog
from edge.chat import Dialect
from edge.exchange import called
from edge.forms import MEDIA, PAIRS
from edge.operation import Endpoint, Operation, Parameter
from edge.parameters import read_arriving, read_idempotency_key
from edge.problem import Refusal
from edge.remembered import NO_BATCH, NO_TASK, Remembered
from edge.shared import Shared
from edge.strict import check_json
from edge.uploads import TakenForm, Uploads
from edge.utterances import file_urls, files_of, text_of
from runtime.bus import message_id, new_id
from runtime.errors import BusFault
from schemas.base import Address
from schemas.conversation import (
    SESSION,
    STATUS_NUMBERS,
    Abort,
    BatchOpened,
    BatchState,
    MessageAnswered,
    OpenBatch,
    TaskState,
)
from schemas.model import Usage, Utterance

TAG = "batches"
BATCH_ID = Parameter("batch_id", str, "The id that asking answered.")
TASK_ID = Parameter("task_id", str, "One of the ids that asking answered.")


class Batches:
    """The operations on batches and their tasks, and what answers a form."""

    def __init__(
        self, shared: Shared, catalog: Catalog, uploads: Uploads, remembered: Remembered
    ) -> None:
        self._shared = shared
        self._catalog = catalog
        self._uploads = uploads
        self._remembered = remembered

    def dialects(self) -> Sequence[Dialect]:
        """How the path of OpenAI's chat completions answers a form, with files or without."""
        return [Dialect(media, self.complete, BatchForm, BatchAccepted) for media in (MEDIA, PAIRS)]

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _read("batches/{batch_id}", self.batch, "See how far a batch is", BatchView, NO_BATCH),
            _read("tasks/{task_id}", self.task, "See how far a task is", TaskView, NO_TASK),
            abort("batches/{batch_id}", self.abort_batch, "Stop all of a batch", NO_BATCH),
            abort("tasks/{task_id}", self.abort_task, "Stop a task", NO_TASK),
        )

    async def complete(self, request: Request) -> Response:
        """Store a batch with its tasks and files; the answer says under which ids."""
        request.state.patient = True
        principal = principal_of(request)
        # Files wait for long for a store that goes away meanwhile, not for one that is away.
        await wait_for_bus(self._shared.bus)
        async with self._uploads.taking(request, FIELDS, FILES, principal.id) as form:
            message = await read_batch(form, self._catalog)
            message = replace(message, arriving=read_arriving(request))
            conversation = read_conversation(form.fields) or _made_id(request)
            opened = await self._open(request, conversation, message, form)
        accepted = BatchAccepted(
            batch_id=opened.batch,
            conversation_id=opened.conversation,
            message=DISPATCHED,
            task_ids=[each.task for each in opened.tasks],
        )
        return answer(accepted)

    async def batch(self, request: Request) -> Response:
        """Answer how far a batch is."""
        batch = str(request.path_params["batch_id"])
        state = await self._remembered.batch(principal_of(request), batch)
        answers = await self._remembered.answers(batch, state)
        view = BatchView(
            batch_id=batch,
            conversation_id=state.conversation,
            status=state.status,
            status_code=STATUS_NUMBERS[state.status],
            user_prompt=text_of(_said(state)),
            created_at=state.created,
            finished_at=state.finished,
            results=[
                TaskResult(**_result(request, id, task, state, answers.get(id)))
                for id, task in state.tasks.items()
            ],
        )
        return answer(view)

    async def task(self, request: Request) -> Response:
        """Answer how far a task is."""
        id = str(request.path_params["task_id"])
        batch, state, task = await self._remembered.task(principal_of(request), id)
        found = (await self._remembered.answers(batch, state)).get(id)
        view = TaskView(
            batch_id=batch,
            conversation_id=state.conversation,
            task_type=_task_type(state),
            prompt=text_of(_said(state)),
            created_at=state.created,
            **_result(request, id, task, state, found),
        )
        return answer(view)

    async def abort_batch(self, request: Request) -> Response:
        """Stop every run of a batch."""
        batch = str(request.path_params["batch_id"])
        reason = await read_reason(request)
        state = await self._remembered.batch(principal_of(request), batch)
        return await self._abort(request, state, Abort(batch=batch, reason=reason))

    async def abort_task(self, request: Request) -> Response:
        """Stop the run of a task."""
        id = str(request.path_params["task_id"])
        reason = await read_reason(request)
        _, state, task = await self._remembered.task(principal_of(request), id)
        return await self._abort(request, state, Abort(run=task.run, task=id, reason=reason))

    async def _abort(self, request: Request, state: BatchState, message: Abort) -> Response:
        to = Address(state.session, state.conversation)
        done = await ask_for(request, self._shared.bus, "abort", to, message)
        return answer(AbortedView(list(done.runs), list(done.tasks)))

    async def _open(
        self, request: Request, conversation: str, message: OpenBatch, form: TakenForm
    ) -> BatchOpened:
        """Ask the session. Files stay, unless it is sure that nobody was told of them."""
        bus, to = self._shared.bus, Address(SESSION, conversation)
        form.kept = True
        try:
            opened = await ask_for(
                request, bus, "batch", to, message, bodyhash=fingerprint(said_by(form))
            )
        except Refusal as refusal:
            form.kept = refusal.status >= 500
            raise
        if not opened.batch:
            raise called(opened)
        if form.files and read_idempotency_key(request):
            await self._discard_repeated(request, opened, form)
        return opened

    async def _discard_repeated(
        self, request: Request, opened: BatchOpened, form: TakenForm
    ) -> None:
        """Take away the files of a repeat: the batch has those of the first request."""
        with contextlib.suppress(Refusal, BusFault):
            state = await self._remembered.batch(principal_of(request), opened.batch)
            used = {ref.id for ref in files_of(_said(state))}
            await self._uploads.discard([each for each in form.files if each.ref.id not in used])


def abort(path: str, endpoint: Endpoint, summary: str, missing: str) -> Operation:
    """Return the operation that stops something; what had ended before is not touched."""
    return Operation(
        "POST",
        f"/v1/{path}/abort",
        endpoint,
        summary,
        scope=CHAT_SEND,
        body=Aborting,
        bodiless=True,
        answers={200: AbortedView, 404: missing},
        tag=TAG,
    )


async def read_reason(request: Request) -> str:
    """Return why something is to be stopped; the body may be left out. Raises Refusal."""
    raw = await read_body(request, LIMIT)
    if not raw:
        return ""
    check_json(raw)
    body: Aborting = decode(raw, Aborting)
    return body.reason


def _read(path: str, endpoint: Endpoint, summary: str, shape: Any, missing: str) -> Operation:
    variable = BATCH_ID if "batch_id" in path else TASK_ID
    name = "batch" if variable is BATCH_ID else "batch_task"
    return Operation(
        "GET",
        f"/v1/{path}",
        endpoint,
        summary,
        name=name,
        scope=CHAT_READ,
        answers={200: shape, 404: missing},
        variables=(variable,),
        tag=TAG,
    )


def _made_id(request: Request) -> str:
    """The id of a new conversation: a repeat under the same Idempotency-Key gets the same."""
    key = read_idempotency_key(request)
    return message_id(principal_of(request).id, "conversation", key) if key else new_id()


def _said(state: BatchState) -> Utterance | None:
    if state.said is None and state.prompt.messages:
        return state.prompt.messages[-1]
    return state.said


def _task_type(state: BatchState) -> Literal["TEXT", "IMAGE", "MULTIMODAL"]:
    if state.prompt.messages and text_of(state.prompt.messages[-1]).startswith(FOR_A_PICTURE):
        return "IMAGE"
    return "MULTIMODAL" if files_of(_said(state)) else "TEXT"


def _result(
    request: Request,
    id: str,
    task: TaskState,
    state: BatchState,
    said: MessageAnswered | None,
) -> Mapping[str, Any]:
    """What is told of a task, wherever it is told."""
    failed = task.status == "FAILED"
    return {
        "task_id": id,
        "model_name": task.wanted.model,
        "status": task.status,
        "status_code": STATUS_NUMBERS[task.status],
        "response_text": said.text if said else None,
        "reasoning_text": said.reasoning or None if said else None,
        "error_msg": (task.reason or "it failed") if failed else None,
        "error_code": task.code or None if failed else None,
        "cost_time": _seconds(state.created, task.finished),
        "finish_reason": task.finish if task.status == "SUCCESS" else None,
        "usage": task.usage if task.usage != Usage() else None,
        "files": file_urls(request, said.files) if said else [],
        "winner": id == state.winner,
    }


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return round((end - begin).total_seconds(), 3) if begin and end else None
