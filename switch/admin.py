"""The operators' door: metrics, health, and the commands that reach a running switch.

`/metrics`, `/healthz` and `/readyz` are open to whoever reaches the port, which is loopback's by default. Everything below `/v1`
needs the token in the data folder's `keys/admin.token`.

How it works: Starlette for routes, Hypercorn's trio worker for HTTP. A handler runs on the same thread as the pump, between
two waves, so it may call the core directly; an import answers when its last record is durable.
"""

import hmac
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

__all__ = ["application", "listen", "serve"]

IMPORT_BYTES_MAX: Final = 256 << 20
"""The core's own bound for a file; more is not even read."""


def application(core: Core, gateway: Gateway, progress: Callable[[], Progress], token: str) -> Starlette:
    """The routes over one core."""
    metrics = exposition(lambda: msgspec.json.decode(core.statistics(), type=Statistics), progress)

    async def show_metrics(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    async def health(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readiness(_: Request) -> Response:
        # Terminals are served without PostgreSQL, so its absence is told and does not make the switch unready.
        settled = progress()
        lag = max(0, core.durable - settled.settled)
        return JSONResponse(
            {"ready": True, "settlement": {"connected": settled.connected, "settled": settled.settled, "lag": lag, "error": settled.error}}
        )

    async def statistics(_: Request) -> Response:
        return _json(core.statistics())

    async def import_file(request: Request) -> Response:
        if int(request.headers.get("content-length", 0)) > IMPORT_BYTES_MAX:
            return _refused(413, f"a file may have {IMPORT_BYTES_MAX} bytes; split it")
        content = await request.body()
        try:
            report = core.import_csv(request.query_params.get("name", "import.csv"), content)
        except CoreError as error:
            return _refused(422, str(error))
        await gateway.wait_durable(core.position)
        return _json(report)

    async def show(request: Request) -> Response:
        kind, identifier = request.path_params["kind"], request.path_params["identifier"]
        try:
            shown = core.show(kind, identifier)
        except CoreError as error:
            return _refused(404, str(error))
        return _refused(404, f"there is no {kind} {identifier}") if shown is None else _json(shown)

    def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return _refused(401, "the admin token is missing or wrong; it stands in the data folder's keys/admin.token")
            return await handler(request)

        return guard

    return Starlette(
        routes=[
            Route("/metrics", show_metrics),
            Route("/healthz", health),
            Route("/readyz", readiness),
            Route("/v1/statistics", guarded(statistics)),
            Route("/v1/import", guarded(import_file), methods=["POST"]),
            Route("/v1/show/{kind}/{identifier}", guarded(show)),
        ]
    )


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _refused(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status_code=status)


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
