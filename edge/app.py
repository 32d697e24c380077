"""The edge as one application: every surface, one table of operations, one way to say no."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from edge.approvals import Approvals
from edge.asking import TRANSLATIONS
from edge.auth import Authentication, Authorization, Doorkeeper
from edge.batches import Batches
from edge.catalog import Catalog
from edge.chat import Chat
from edge.children import Children
from edge.completions import Completions
from edge.conversations import Conversing
from edge.desk_service import serve_agents
from edge.docs import documentation
from edge.downloads import Downloads
from edge.gestures import Gestures
from edge.health import HealthCheck, own_version
from edge.journal import Journal
from edge.models import Listing
from edge.nodes import Nodes
from edge.observing import Observing
from edge.openapi import describe, publish
from edge.operation import Operation, routes
from edge.pages import pages
from edge.problem import Answering, Answers
from edge.relay import Relay
from edge.remembered import Remembered
from edge.service import Surface, serve_customers
from edge.shared import Shared
from edge.sse import IN_TOTAL, Streams
from edge.storegate import StoreGate
from edge.tasks import Tasks
from edge.uploads import Uploads
from runtime.bus import Bus
from runtime.keys import listens_on_loopback_only, resolve_keys
from runtime.objects import FileStore
from runtime.tables import Config

TITLE = "Callboard"
ABOUT = (
    "Conversations between people, models and programs. A write is answered once it is stored; "
    "every stream resumes from its last id."
)


def build_app(
    config: Config,
    bus: Bus,
    *,
    environ: Mapping[str, str] | None = None,
    streams: Streams | None = None,
) -> Starlette:
    """Return the application. `app.state.shared` has its parts.

    Keys come from `environ`, which is the process's own if it is not given. Raises ConfigError
    for a key that may not be used.
    """
    keys = resolve_keys(config, os.environ if environ is None else environ)
    shared = Shared(bus, streams or Streams(in_total=max(IN_TOTAL, config.edge.support.streams)))
    doorkeeper = Doorkeeper(
        keys,
        open_reads=config.edge.open_reads,
        local_reads=listens_on_loopback_only(config),
        open_chat=config.edge.support.open,
        bearers=shared.agents,
    )
    answers = Answers(translations=TRANSLATIONS)
    app = Starlette(
        routes=_routes(_operations(shared, doorkeeper, config), docs=config.edge.docs),
        middleware=[
            Middleware(Observing),
            Middleware(Answering, answers=answers),
            Middleware(StoreGate, store=shared.store),
            Middleware(Authentication, doorkeeper=doorkeeper),
        ],
        exception_handlers=answers.handlers(),
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.state.shared = shared
    return app


def _operations(shared: Shared, doorkeeper: Doorkeeper, config: Config) -> list[Operation]:
    relay = (Relay(shared), Tasks(shared), Journal(shared), Children(shared))
    catalog, remembered, store = Catalog(shared.deployed), Remembered(shared), FileStore(shared.bus)
    batches = Batches(shared, catalog, Uploads(store, config.edge.files), remembered)
    completions = Completions(shared, catalog, store, config.edge.files)
    chat = Chat(completions.dialect(), *batches.dialects())
    asking = (Listing(shared, catalog), chat, batches)
    seeing = (Conversing(shared, remembered), Downloads(shared, store), Nodes(shared))
    agents = serve_agents(shared, catalog, remembered, config.edge.support)
    desk = (*agents, Gestures(shared, remembered), Approvals(shared, remembered))
    health = HealthCheck(shared, doorkeeper)
    support = serve_customers(shared, catalog, remembered, config.edge.support, doorkeeper, health)
    surfaces: tuple[Surface, ...] = (*relay, *asking, *seeing, *desk, *support, health)
    return [operation for surface in surfaces for operation in surface.operations()]


def _routes(table: list[Operation], *, docs: bool) -> list[BaseRoute]:
    document = describe(table, TITLE, own_version(), ABOUT)
    published = [publish(document)] if docs else []
    made = routes(table, middleware=[Middleware(Authorization)])
    return [*made, *pages(), *published, *documentation(docs, document)]


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.shared.open()
    try:
        yield
    finally:
        await app.state.shared.close()
