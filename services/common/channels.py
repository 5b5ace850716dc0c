"""How one service reaches another: message limit, keepalive, balancing, credentials."""

from __future__ import annotations

import json

import grpc

from services.common import tracing, trail
from services.common.credentials import OPEN, Credentials
from services.common.limits import MESSAGE_LIMIT
from services.common.sent_metadata import senders
from services.common.token import token_metadata

#: The statuses of calls that got no answer, or none in time: another try may succeed.
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

#: Bytes of one piece of a blob on a stream: far below the limit, and large enough that headers
#: don't matter.
CHUNK_BYTES = 1024 * 1024

# gRPC watches the health of each peer, and calls only those that are serving.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": dict[str, str]()}],
        "healthCheckConfig": {"serviceName": ""},
    }
)

LIMITS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
]

# If a peer disappears without closing its socket, the other end notices within 30 s. Streams have
# no deadline, since a job may take any time.
_KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # This many in a row are allowed: in a long step nothing else is sent.
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *LIMITS,
    *_KEEPALIVE,
    # By default two servers could share a port, and each would get some of the calls.
    ("grpc.so_reuseport", 0),
    # By default a server closes a connection that pings more often than every five minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    *LIMITS,
    *_KEEPALIVE,
    ("grpc.service_config", _SERVICE_CONFIG),
    # A peer that starts or comes back is found within half a second; by default it takes minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Services reach each other directly. A proxy of the environment is for addresses outside, but
    # gRPC would use it for loopback, too.
    ("grpc.enable_http_proxy", 0),
    # Peers in one process, as in a test or a worker, must not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(
    target: str, credentials: Credentials = OPEN, *, peer: str | None = None
) -> grpc.aio.Channel:
    """A channel to every address of ``target``; calls go to them in turn.

    ``target`` is a gRPC target: ``host:port``, ``dns:///name:port`` for all addresses of a name,
    or ``ipv4:a:port,b:port`` for a list. With TLS the peer's certificate must have that
    name, or the name ``peer`` if ``target`` is one of the addresses of that name. Each
    call says for which job and request it is.
    """
    token = [] if credentials.token is None else token_metadata(credentials.token)
    interceptors = [
        *tracing.client_interceptors(),
        *senders(lambda: [*token, *trail.current().metadata()]),
    ]
    options = list(CHANNEL_OPTIONS)
    if peer is not None:
        options += [("grpc.default_authority", peer), ("grpc.ssl_target_name_override", peer)]
    shown = credentials.of_channel()
    if shown is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, shown, options=options, interceptors=interceptors)
