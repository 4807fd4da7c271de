"""The operators' door: metrics, health, and the commands that reach a running switch.

`/metrics`, `/healthz` and `/readyz` are open to whoever reaches the port, which is loopback's by default. Everything below `/v1`
needs the token in the data folder's `keys/admin.token`.

How it works: Starlette for routes, Hypercorn's trio worker for HTTP. A handler runs on the same thread as the pump, between
two waves, so it may call the core directly. What it tells is durable: an import answers when its last record is, and so does
a look at a card, which may show what was decided a moment ago.
"""

import hmac
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import hypercorn.config
import hypercorn.trio
import msgspec
import trio
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from switch._core import Core, CoreError
from switch.follow import Progress
from switch.gateway import Gateway
from switch.metrics import Statistics, exposition

__all__ = ["Door", "listen", "serve"]

log = logging.getLogger(__name__)

IMPORT_BYTES_MAX: Final = 256 << 20
"""The core's own bound for a file; more is not even read."""


class Shown(msgspec.Struct, frozen=True):
    """What is looked at in the core's answer to `show`."""

    position: int
    """The last record of which it knows."""


class Door:
    """The routes over one core."""

    def __init__(self, core: Core, gateway: Gateway, progress: Callable[[], Progress], token: str) -> None:
        self._core = core
        self._gateway = gateway
        self._progress = progress
        self._token = token
        self._metrics = exposition(self._statistics, progress)

    def application(self) -> Starlette:
        """All of them, as an ASGI application."""
        return Starlette(
            routes=[
                Route("/metrics", self._show_metrics),
                Route("/healthz", self._show_health),
                Route("/readyz", self._show_readiness),
                Route("/v1/statistics", self._guarded(self._show_statistics)),
                Route("/v1/import", self._guarded(self._import), methods=["POST"]),
                Route("/v1/audit", self._guarded(self._note_audit), methods=["POST"]),
                Route("/v1/show/{kind}/{identifier:path}", self._guarded(self._show)),
            ]
        )

    def _statistics(self) -> Statistics:
        return msgspec.json.decode(self._core.statistics(), type=Statistics)

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                return _refused(401, "the admin token is missing or wrong; it stands in the data folder's keys/admin.token")
            return await handler(request)

        return guard

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics(), media_type=CONTENT_TYPE_LATEST)

    async def _show_health(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def _show_readiness(self, _: Request) -> Response:
        if self._gateway.draining:
            return _unready("the switch is ending")
        if not self._statistics().room:
            return _unready("the journal has no room; free space on its disk")
        # Terminals are served without PostgreSQL, so its absence is told and does not make the switch unready.
        settled = self._progress()
        lag = max(0, self._core.durable - settled.settled)
        settlement = {"connected": settled.connected, "settled": settled.settled, "lag": lag, "error": settled.error}
        return JSONResponse({"ready": True, "settlement": settlement})

    async def _show_statistics(self, _: Request) -> Response:
        return _json(self._core.statistics())

    async def _import(self, request: Request) -> Response:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > IMPORT_BYTES_MAX:
                return _refused(413, f"a file may have {IMPORT_BYTES_MAX} bytes; split it")
        try:
            report = self._core.import_csv(request.query_params.get("name", "import.csv"), bytes(content))
        except CoreError as error:
            return _refused(422, str(error))
        await self._gateway.wait_durable(self._core.position)
        return _json(report)

    async def _note_audit(self, request: Request) -> Response:
        # The report is made by the command, from the journal; here it is only written down who asked for what.
        first, last, by = (request.query_params.get(name, "") for name in ("from", "to", "by"))
        if not all(re.fullmatch(r"[\w.@+-]{1,64}", text) for text in (first, last, by)):
            return _refused(422, "an audit is noted with from, to and by, each of 1 to 64 letters and digits")
        log.info("evidence from %s to %s is asked for by %s", first, last, by)
        return Response(status_code=204)

    async def _show(self, request: Request) -> Response:
        kind, identifier = request.path_params["kind"], request.path_params["identifier"]
        try:
            shown = self._core.show(kind, identifier)
        except CoreError as error:
            return _refused(404, str(error))
        if shown is None:
            return _refused(404, f"there is no {kind} {identifier}")
        await self._gateway.wait_durable(msgspec.json.decode(shown, type=Shown).position)
        return _json(shown)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _refused(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status_code=status)


def _unready(reason: str) -> Response:
    return JSONResponse({"ready": False, "reason": reason}, status_code=503)


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Listen and say where, `host:port`. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    address = listener.getsockname()
    return listener, f"[{address[0]}]:{address[1]}" if family == socket.AF_INET6 else f"{address[0]}:{address[1]}"


async def serve(
    routes: Starlette,
    listener: socket.socket,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP on the listener, which is closed at the end, until cancelled."""
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = 1.0
    await hypercorn.trio.serve(routes, config, mode="asgi", task_status=task_status)  # type: ignore[arg-type]
