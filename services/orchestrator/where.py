"""Finds the service's Redis, for commands that use it beside the service."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from services.common.redis_address import OWN_ADDRESS, checked_redis_url, redis_refusal
from services.orchestrator.settings import StoreSettings


class NoRedis(ValueError):
    """There is no Redis at the address, or it refuses this process. The message says what to do."""


@dataclass(frozen=True)
class Place:
    """``name`` is the setting that named the address; ``remedy`` is what to do if Redis does not
    answer; ``folder`` is the data folder of the `dualprocess up` that started this Redis.
    ``is_named`` is false for the default address."""

    url: str = field(repr=False)
    name: str
    remedy: str
    folder: Path | None = None
    is_named: bool = True


def redis(data: Path | None, redis_url: str | None, command: str) -> Place:
    """From --data or --redis-url of ``command``, the environment, or ./data. Checks that Redis
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
