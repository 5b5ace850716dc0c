"""The REST API. It uses Redis and the artifact store, and calls no GPU service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from importlib.metadata import version

from fastapi import FastAPI
from redis.exceptions import RedisError
from starlette.middleware.cors import CORSMiddleware

from dualprocess.schemas import Problem
from services.common import tracing
from services.common.presets import load_presets
from services.orchestrator.api import (
    answers,
    artifacts,
    batches,
    document,
    events,
    health,
    images,
    jobs,
    models,
    problems,
    prompts,
    questions,
)
from services.orchestrator.api.auth import Doors, owner_of
from services.orchestrator.api.background import background
from services.orchestrator.api.body_kind import JsonBodies
from services.orchestrator.api.body_limit import BodyLimit
from services.orchestrator.api.hosts import AskedHost, Names
from services.orchestrator.api.interrupted import Interrupted
from services.orchestrator.api.origins import OwnPages
from services.orchestrator.api.proxied import Proxied, networks
from services.orchestrator.api.rechecks import Rechecks
from services.orchestrator.api.request_id import RequestIds
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.api.state import State
from services.orchestrator.api.stream_limit import StreamLimit
from services.orchestrator.api.watched_requests import WatchedRequests
from services.orchestrator.api.wrong_keys import WrongKeys
from services.orchestrator.following.places import Places
from services.orchestrator.following.reader import Following
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.base_scores import BaseScores
from services.orchestrator.store.batches import Batches
from services.orchestrator.store.deletion import Deletion
from services.orchestrator.store.events import Events
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.keys import ApiKeys
from services.orchestrator.store.paces import Paces
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import connect
from services.orchestrator.store.reporter import Reporter
from services.orchestrator.store.turns import Turns
from services.orchestrator.store.uploads import Uploads
from services.orchestrator.store.workers import Workers
from services.orchestrator.ui.late_page import LatePage
from services.orchestrator.ui.mount import mount
from services.orchestrator.webhooks.addresses import AddressPolicy

#: How often a request tries Redis again before it answers 503.
_REDIS_RETRIES = 2
#: The headers that pages of another origin may send and read, besides those that are always
#: allowed.
_CORS_SENT = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Request-Id",
    "X-Requested-With",
]
_CORS_READ = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "X-Request-Id",
]


def create_app(settings: ApiSettings, *, page_built: Callable[[], None] = lambda: None) -> FastAPI:
    """``page_built`` is called when the page is there, some time after the start."""
    page: LatePage | None = None
    presets = load_presets(settings.presets)
    store = ArtifactStore(
        settings.artifacts,
        seconds=settings.store_seconds,
        signed_seconds=settings.signed_downloads,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = connect(settings.redis_url, retries=_REDIS_RETRIES)
        following, api_keys = Following(redis), ApiKeys(redis)
        endpoint = settings.endpoint()
        state = State(
            presets=presets,
            redis=redis,
            queue=Queue(redis),
            jobs=Jobs(redis),
            batches=Batches(redis),
            events=Events(redis),
            following=following,
            places=Places(total=settings.streams, per_key=settings.streams_per_key),
            workers=Workers(redis),
            paces=Paces(redis),
            reporter=Reporter(redis),
            artifacts=store,
            uploads=Uploads(redis, store),
            deletion=Deletion(redis, store),
            base_scores=BaseScores(redis),
            api_keys=api_keys,
            rechecks=Rechecks(api_keys),
            addresses=AddressPolicy(loopback=settings.webhook_loopback),
            turns=Turns(redis),
            endpoint=endpoint,
            max_job_work=settings.max_job_work,
            webhook_secret=settings.webhook_secret,
        )
        app.state.dualprocess = state

        async def worker_lives() -> bool:
            try:
                return bool(await state.workers.live())
            except RedisError:
                return False

        async with background(settings, state), page.open(worker_lives) if page else nullcontext():
            yield
        with contextlib.suppress(RedisError):
            await state.reporter.leave()
        await following.close()
        if endpoint is not None:
            await endpoint.close()
        await redis.aclose()

    app = FastAPI(
        **document.ABOUT,
        generate_unique_id_function=document.operation_id,
        version=version("dualprocess"),
        lifespan=lifespan,
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
    )
    # The last one is the outermost, so the caller is known before a body is read.
    app.add_middleware(JsonBodies, keys=settings.auth)
    app.add_middleware(BodyLimit, limit=settings.body_limit)
    app.add_middleware(StreamLimit)
    wrong_keys = WrongKeys(settings.wrong_keys, settings.wrong_keys_seconds)
    app.add_middleware(Doors, required=settings.auth, wrong_keys=wrong_keys)
    app.add_middleware(Interrupted)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
        )
    problems.install(app)
    document.install(app, auth=settings.auth)
    events.install(app)
    resources = (
        jobs,
        batches,
        events,
        artifacts,
        images,
        questions,
        prompts,
        answers,
        models,
        health,
    )
    for resource in resources:
        app.include_router(resource.router)
    document.list_routes(app, [resource.router for resource in resources])
    if settings.ui:
        page = mount(app, auth=settings.auth, owner=owner_of, built=page_built)
    if not settings.auth:
        app.add_middleware(OwnPages, origins=settings.origins)
    # Outside of all others, including the page's: those know only the service's own paths. A web
    # page can send the headers of a proxy, so the name in Host is checked as well as the name that
    # a proxy reports.
    names = Names(settings.names)
    app.add_middleware(AskedHost, names=names)
    # Behind the proxy's prefix: it counts by the service's own paths.
    app.add_middleware(WatchedRequests)
    app.add_middleware(
        Proxied, root_path=settings.root_path, trusted=networks(settings.trusted_proxies)
    )
    app.add_middleware(AskedHost, names=names)
    app.add_middleware(RequestIds)
    tracing.watch_app(app)
    return app
