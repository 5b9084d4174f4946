"""Bodies of requests to the fast route: how large, of which type, and what must be in them."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from dreamer.types import ConfigError
from pipeline.serving.policy import DEFAULTS

MOST_BYTES = 16 * 2**20
SECONDS = 60  # that a body may take to arrive
FIELDS = {"inputs", "params"}


async def read_body(request: Request) -> bytes:
    """The whole body, in `SECONDS` and `MOST_BYTES`.

    Raises:
        HTTPException: 408 or 413, or 415 where it is no JSON by its own account.
    """
    check_type(request.headers.get("content-type", ""))
    try:
        async with asyncio.timeout(SECONDS):
            return await _collect(request)
    except TimeoutError:
        reason = f"the body: found no end in {SECONDS} seconds; allowed: all of it at once"
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, reason) from None


async def _collect(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        # What is too much is read and dropped, or the client would not listen; but not for ever.
        if size > 4 * MOST_BYTES:
            break
        if size <= MOST_BYTES:
            parts.append(part)
    if size > MOST_BYTES:
        reason = f"the body: found more than {MOST_BYTES} bytes; allowed: fewer rows at a time"
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
    return b"".join(parts)


def check_type(content_type: str) -> None:
    """Refuse what does not call itself JSON in UTF-8.

    Raises:
        HTTPException: 415.
    """
    kind, _, rest = content_type.lower().partition(";")
    if kind.strip() != "application/json" or rest.strip() not in ("", "charset=utf-8"):
        reason = f"content-type: found {content_type!r}; allowed: application/json, in UTF-8"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, reason)


def parse(body: bytes) -> tuple[Any, dict[str, Any]]:
    """Inputs, not looked into, and all parameters: those left out are `DEFAULTS`.

    Args:
        body: JSON of an object with `inputs` and, where wanted, `params`.

    Raises:
        ConfigError: It is something else. RecursionError: It is nested too deep.
    """
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ConfigError("the body", str(error), "JSON in UTF-8") from None
    fields = request.keys() if isinstance(request, dict) else set()
    if not {"inputs"} <= fields <= FIELDS:
        found = sorted(fields) if fields else type(request).__name__
        raise ConfigError("the body", found, "an object with the keys inputs and maybe params")
    params = {} if request.get("params") is None else request["params"]
    if not isinstance(params, dict) or not params.keys() <= DEFAULTS.keys():
        found = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ConfigError("params", found, f"an object with the keys {sorted(DEFAULTS)}")
    return request["inputs"], DEFAULTS | params
