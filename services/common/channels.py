"""How one service reaches another: message limit, keepalive, balancing, credentials."""

from __future__ import annotations

import json

import grpc

from services.common import tracing, trail
from services.common.credentials import OPEN, Credentials
from services.common.limits import MESSAGE_LIMIT
from services.common.sent_metadata import senders
from services.common.token import token_metadata

#: How a call ends that reached nobody, or nobody in time: another try may reach somebody.
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

#: A blob's piece on a stream: far below the limit, large enough that headers don't matter.
CHUNK_BYTES = 1024 * 1024

_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": dict[str, str]()}]})

LIMITS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
]

# A peer that vanished without closing its socket is noticed within 30 s, at either end: streams
# have no deadline, since a job takes as long as it takes.
_KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # As many in a row as the silence of a long step takes.
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *LIMITS,
    *_KEEPALIVE,
    # By default two servers share a port, and each gets some of the calls.
    ("grpc.so_reuseport", 0),
    # By default a server hangs up on who asks more often than every five minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    *LIMITS,
    *_KEEPALIVE,
    ("grpc.service_config", _SERVICE_CONFIG),
    # A replica that comes back is found within 2 s, not after the default's minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Services reach each other directly: a proxy of the environment is for what lies outside, and
    # would be asked for loopback, too.
    ("grpc.enable_http_proxy", 0),
    # In-process peers of one test or worker must not share a connection's fate.
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(target: str, credentials: Credentials = OPEN) -> grpc.aio.Channel:
    """A channel to every address behind ``target``, calls spread over them in turn.

    ``target`` is a gRPC target: ``host:port``, ``dns:///name:port`` for all addresses of a name,
    or ``ipv4:a:port,b:port`` for a list. With TLS the peer's certificate must carry that name. Each
    call says which job and request it is for.
    """
    token = [] if credentials.token is None else token_metadata(credentials.token)
    interceptors = [
        *tracing.client_interceptors(),
        *senders(lambda: [*token, *trail.current().metadata()]),
    ]
    shown = credentials.of_channel()
    if shown is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS, interceptors=interceptors)
    return grpc.aio.secure_channel(
        target, shown, options=CHANNEL_OPTIONS, interceptors=interceptors
    )
