"""API keys as they are stored: a hash each, with the SHA-256 of the key and never the key."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from services.orchestrator.store import redis as names
from services.orchestrator.store.ids import ALPHABET
from services.orchestrator.store.quotas import Quotas

_ID_LETTERS = 12
#: 260 bits: nothing to guess, so a fast hash is enough.
_SECRET_LETTERS = 52

_KEY = re.compile(rf"dp_([{ALPHABET}]{{{_ID_LETTERS}}})_([{ALPHABET}]{{{_SECRET_LETTERS}}})")


class Scope(StrEnum):
    """What a key may do. ``admin`` implies the others, for everyone's jobs."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. Its id is the owner of the jobs that it makes."""

    id: str
    name: str
    scopes: frozenset[Scope]
    quotas: Quotas
    created_at: datetime
    revoked_at: datetime | None


class ApiKeys:
    """Makes, lists, revokes and checks keys."""

    def __init__(self, redis: names.Client) -> None:
        self._redis = redis

    async def create(self, name: str, scopes: Collection[Scope], quotas: Quotas) -> str:
        """A new key, ``dp_<id>_<secret>``. Nothing can show it a second time."""
        key_id = _letters(_ID_LETTERS)
        key = f"dp_{key_id}_{_letters(_SECRET_LETTERS)}"
        fields = {
            "id": key_id,
            "sha256": _digest(key),
            "name": name,
            "scopes": ",".join(sorted(scopes)),
            "created_at": _now(),
            **quotas.model_dump(exclude_none=True),
        }
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(names.api_key_key(key_id), mapping=fields)
            pipe.sadd(names.API_KEYS, key_id)
            await pipe.execute()
        return key

    async def list(self) -> list[ApiKey]:
        """Every key that was ever made, oldest first."""
        ids = sorted(await self._redis.smembers(names.API_KEYS))
        async with self._redis.pipeline(transaction=False) as pipe:
            for key_id in ids:
                pipe.hgetall(names.api_key_key(key_id))
            found = [_api_key(fields) for fields in await pipe.execute()]
        return sorted(found, key=lambda key: key.created_at)

    async def revoke(self, key_id: str) -> bool:
        """The key opens nothing from now on; false when there is no such key."""
        if not await self._redis.sismember(names.API_KEYS, key_id):
            return False
        await self._redis.hsetnx(names.api_key_key(key_id), "revoked_at", _now())
        return True

    async def find(self, key: str) -> ApiKey | None:
        """The key, perhaps a revoked one; ``None`` when it is not one of ours."""
        match = _KEY.fullmatch(key)
        fields = await self._redis.hgetall(names.api_key_key(match[1])) if match else None
        if not fields or not hmac.compare_digest(fields["sha256"], _digest(key)):
            return None
        return _api_key(fields)


def id_of(key: str) -> str:
    """The id in a key that was just made."""
    return key.split("_")[1]


def _api_key(fields: dict[str, str]) -> ApiKey:
    revoked_at = fields.get("revoked_at")
    return ApiKey(
        id=fields["id"],
        name=fields["name"],
        scopes=frozenset(Scope(scope) for scope in fields["scopes"].split(",")),
        quotas=Quotas.model_validate(
            {name: fields[name] for name in Quotas.model_fields if name in fields}
        ),
        created_at=datetime.fromisoformat(fields["created_at"]),
        revoked_at=datetime.fromisoformat(revoked_at) if revoked_at else None,
    )


def _letters(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat()
