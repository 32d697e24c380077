"""The list of models, as clients of OpenAI's API read it before they ask one."""

from collections.abc import Sequence
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, wait_for_bus
from edge.auth import CHAT_READ
from edge.catalog import Catalog, Offer
from edge.openai_shapes import Model, Models, OpenAIError
from edge.operation import Operation, Parameter
from edge.shared import Shared

TAG = "models"
ID = Parameter("id", str, "The model's id; it may contain slashes.")


class Listing:
    """The operations that say which models there are."""

    def __init__(self, shared: Shared, catalog: Catalog) -> None:
        self._bus = shared.bus
        self._catalog = catalog

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            Operation(
                "GET",
                "/v1/models",
                self.list,
                "List the models that may be asked",
                name="models",
                scope=CHAT_READ,
                answers={200: Models},
                error=OpenAIError,
                tag=TAG,
            ),
            Operation(
                "GET",
                "/v1/models/{id:path}",
                self.view,
                "See one model",
                name="model",
                scope=CHAT_READ,
                answers={200: Model, 404: "There is no such model"},
                error=OpenAIError,
                variables=(ID,),
                tag=TAG,
            ),
        )

    async def list(self, request: Request) -> Response:
        """Answer all models."""
        await wait_for_bus(self._bus)
        return answer(Models(data=[self._shown(one) for one in await self._catalog.offers()]))

    async def view(self, request: Request) -> Response:
        """Answer one model, under the name it was asked for."""
        await wait_for_bus(self._bus)
        name = str(request.path_params["id"])
        shown = self._shown(await self._catalog.find(name))
        shown.id = name
        return answer(shown)

    def _shown(self, offer: Offer) -> Model:
        # What is deployed has no date; all of it is younger than its stream.
        created = datetime.fromisoformat(self._bus.created[:19] + "+00:00")
        return Model(id=offer.id, created=int(created.timestamp()), owned_by=offer.owned_by)
