"""Where the service's Redis is, for commands that write to it beside the service."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from services.common.redis_address import OWN_ADDRESS, checked_redis_url, redis_refusal
from services.orchestrator.settings import StoreSettings


class NoRedis(ValueError):
    """What was named is no Redis, or lets nobody in. The message says what to do."""


@dataclass(frozen=True)
class Place:
    """``name`` is by what it is known; ``remedy`` what to do where it does not answer; ``folder``
    the one of `dualprocess up` where its stack started it. ``is_named``: somebody said so."""

    url: str = field(repr=False)
    name: str
    remedy: str
    folder: Path | None = None
    is_named: bool = True


def redis(data: Path | None, redis_url: str | None, command: str) -> Place:
    """By --data or --redis-url of ``command``, the environment, or ./data. Asks Redis whether it
    lets this process in. Raises ``NoRedis``."""
    place = _place(data, redis_url, command)
    try:
        checked_redis_url(place.url)
    except ValueError as error:
        raise NoRedis(f"{place.name}: {error}") from None
    if refusal := redis_refusal(place.url):
        raise NoRedis(f"{place.name}: {refusal}")
    return place


def _place(data: Path | None, redis_url: str | None, command: str) -> Place:
    if redis_url:
        return Place(redis_url.strip(), "--redis-url", "name the service's own")
    settings = StoreSettings.from_environment()
    is_named = "redis_url" in settings.model_fields_set
    folder = data or Path(os.environ.get("DUALPROCESS_DATA") or "data")
    address = folder / OWN_ADDRESS
    if (data is not None or not is_named) and address.is_file():
        try:
            url = address.read_text(encoding="utf-8")
        except OSError as error:
            raise NoRedis(f"--data: {address} can't be read ({error.strerror})") from error
        start = f"start it with `dualprocess up --data {folder}`"
        return Place(url, f"--data {folder}", start, folder)
    if is_named:
        return Place(settings.redis_url, "--redis-url", "name the service's own")
    if data is not None:
        raise NoRedis(
            f"--data: no stack with a Redis of its own runs in {folder}; start it with "
            f"`dualprocess up --data {folder}`, or name the service's Redis with --redis-url"
        )
    remedy = (
        f"no stack runs in {folder.resolve()} either. Name the folder of the stack, `dualprocess "
        f"{command} --data DIR …` after `dualprocess up --data DIR`, or name the service's Redis"
    )
    return Place(settings.redis_url, "--redis-url", remedy, is_named=False)
