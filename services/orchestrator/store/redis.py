"""The connection to Redis, and the name of every key in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError

from services.common.redis_sentinel import is_sentinel, sentinel_address

#: A client that decodes what it reads, unless it is told not to. Typed loosely, since redis-py's
#: types can't express that.
Client: TypeAlias = Any

_PREFIX = "dualprocess"

#: The most connections of one process. A command takes about a millisecond; one that finds all
#: connections busy waits for a free one, for this many seconds at most.
_CONNECTIONS = 64
_TURN_SECONDS = 20
#: redis-py's pool for sentinels can't wait: it refuses when all connections are busy.
_WATCHED_CONNECTIONS = 1000

#: Jobs under a lease: job id → end of the lease, in Redis's milliseconds.
LEASES = f"{_PREFIX}:leases"
#: When the last check for leases that are over was made, in Redis's milliseconds.
LOOKED = f"{LEASES}:looked"
#: Jobs that wait before their next attempt: job id → when, in Redis's milliseconds.
DELAYED = f"{_PREFIX}:delayed"
#: All jobs, ordered by id, that is by creation. ``jobs_key`` names its parts.
JOBS = f"{_PREFIX}:jobs"
#: Ended jobs: id → when, in Redis's milliseconds.
FINISHED = f"{JOBS}:finished"
#: The ended jobs whose events are all still there.
FINISHED_EVENTS = f"{FINISHED}:events"
#: Jobs that carry a deadline and have not ended: id → when it is, in Redis's milliseconds.
DEADLINES = f"{JOBS}:deadlines"
#: Messages to send about ended jobs: id → when to try next, in Redis's milliseconds.
WEBHOOKS = f"{JOBS}:webhooks"
#: Jobs that files were stored for and that may not have been accepted → since when, in Redis's
#: milliseconds.
UPLOADS = f"{JOBS}:uploads"
#: Deleted jobs whose files may still lie in the artifact store.
DELETED = f"{JOBS}:deleted"
#: Ids of all API keys that were ever made.
API_KEYS = f"{_PREFIX}:keys"
#: Live workers: what a worker serves, as JSON → until when it is believed alive.
WORKERS = f"{_PREFIX}:workers"
#: Hash: each worker that recently asked for a job → how many jobs it runs, its queues, and until
#: when it counts as waiting, as JSON.
WAITING = f"{WORKERS}:waiting"
#: Recently seen devices: a device and what its worker serves, as JSON → when it was last seen.
DEVICES = f"{WORKERS}:devices"
#: Counts submissions, so that a queue is first in, first out within a priority.
SEQUENCE = f"{_PREFIX}:sequence"
#: Counts claims. Each claim's fencing token begins with its number.
FENCE = f"{_PREFIX}:fence"
#: Names of all queues that were ever used.
QUEUES = f"{_PREFIX}:queues"
#: Hash: a generator with its teachers, as ``pair`` writes it → what its jobs took, as JSON.
PACES = f"{_PREFIX}:paces"
#: String: the API process that tells what is true of the whole service.
REPORTER = f"{_PREFIX}:reporter"

#: A pattern of every name in this file.
EVERY = f"{_PREFIX}:*"
#: Names, and beginnings of names, of keys that are about live processes, and not about jobs.
OF_LIVE_PROCESSES = (WORKERS, LOOKED, f"{_PREFIX}:turns:")


def jobs_key(
    *, owner: str | None = None, batch: str | None = None, status: str | None = None
) -> str:
    """ZSET: all jobs, or those of a batch, else of an owner; of these, those in a status.

    Ordered as ``JOBS`` is.
    """
    whose = f":batch:{batch}" if batch else f":owner:{owner}" if owner else ""
    return f"{JOBS}{whose}" + (f":status:{status}" if status else "")


def batch_key(batch_id: str) -> str:
    """Hash: a batch without its jobs."""
    return f"{jobs_key(batch=batch_id)}:record"


def api_key_key(key_id: str) -> str:
    """Hash: an API key without its secret."""
    return f"{_PREFIX}:key:{key_id}"


def job_key(job_id: str) -> str:
    """Hash: everything a job is."""
    return f"{_PREFIX}:job:{job_id}"


def events_key(job_id: str) -> str:
    """Stream: a job's events. Its ids are the SSE ids."""
    return f"{_PREFIX}:job:{job_id}:events"


def artifacts_key(job_id: str) -> str:
    """Hash: artifact name → where it is stored and what it is, as JSON."""
    return f"{_PREFIX}:job:{job_id}:artifacts"


def causes_key(job_id: str) -> str:
    """List: why each attempt ended, and other problems."""
    return f"{_PREFIX}:job:{job_id}:causes"


def pair(generator: str, vlms: Collection[str]) -> str:
    """A generator with VLMs, in any order."""
    return f"{generator}|{'+'.join(sorted(vlms))}"


def queue_key(generator: str, vlms: Collection[str]) -> str:
    """ZSET: the jobs that wait for this generator with all of these VLMs, next first."""
    return f"{_PREFIX}:queue:{pair(generator, vlms)}"


def queue_needs(key: str) -> tuple[str, set[str]]:
    """The generator and the VLMs that a queue's jobs need."""
    generator, _, vlms = key.removeprefix(f"{_PREFIX}:queue:").partition("|")
    return generator, set(filter(None, vlms.split("+")))


def claimed_key(worker: str) -> str:
    """Hash: a worker's last claim, and the name of the call that made it."""
    return f"{WORKERS}:claimed:{worker}"


def turns_key(owner: str) -> str:
    """ZSET: an owner's requests that are under way without a job → when each is over, in Redis's
    milliseconds."""
    return f"{_PREFIX}:turns:{owner}"


def idempotency_key(owner: str, key: str) -> str:
    """String: the job that was made with an owner's idempotency key, and the hash of the
    request."""
    return f"{_PREFIX}:idempotency:{owner}:{key}"


def base_score_key(owner: str, asked: str) -> str:
    """String: the score of a base model for what an owner asked of it, by the hash of that."""
    return f"{_PREFIX}:base:{owner}:{asked}"


def connect(url: str, *, retries: int, decodes: bool = True, seconds: float = 20) -> Client:
    """A client that tries a command again, ``retries`` times, while Redis is away; -1 means
    without a limit.

    An answer may take ``seconds``. Without ``decodes`` it gives bytes, as DUMP needs.

    A server that restarts with AOF is back within seconds; each pause is at most 2 s. Behind
    sentinels, each new connection goes to the server that is the master at that time.
    """
    options: dict[str, Any] = {
        "decode_responses": decodes,
        "protocol": 2,
        "socket_connect_timeout": 2,
        "socket_timeout": seconds,
        "health_check_interval": 30,
        "retry": Retry(ExponentialBackoff(cap=2, base=0.05), retries),
        "retry_on_error": [ConnectionError, TimeoutError, BusyLoadingError],
    }
    if not is_sentinel(url):
        bound = {"max_connections": _CONNECTIONS, "timeout": _TURN_SECONDS}
        return Redis.from_pool(BlockingConnectionPool.from_url(url, **options, **bound))
    address = sentinel_address(url)
    asked = {"socket_connect_timeout": 2, "socket_timeout": 2, **address.to_sentinels}
    make: Any = Sentinel
    sentinel = make(address.sentinels, sentinel_kwargs=asked)
    return sentinel.master_for(
        address.service,
        _Watched,
        max_connections=_WATCHED_CONNECTIONS,
        **options,
        **address.redis,
    )


class _Watched(Redis):
    """A client for Redis behind sentinels. It also closes the connections to the sentinels."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
