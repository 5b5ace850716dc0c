"""How one service reaches another: message limit, keepalive, balancing."""

from __future__ import annotations

import json

import grpc

from services.common.limits import MESSAGE_LIMIT

#: A blob's piece on a stream: far below the limit, large enough that headers don't matter.
CHUNK_BYTES = 1024 * 1024

_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": dict[str, str]()}]})

LIMITS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
]

_OPTIONS: list[tuple[str, int | str]] = [
    *LIMITS,
    ("grpc.service_config", _SERVICE_CONFIG),
    # A peer that vanished without closing its socket is noticed within 30 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A replica that comes back is found within 2 s, not after the default's minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # In-process peers of one test or worker must not share a connection's fate.
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel to every address behind ``target``, calls spread over them in turn.

    ``target`` is a gRPC target: ``host:port``, ``dns:///name:port`` for all addresses of a name,
    or ``ipv4:a:port,b:port`` for a list.
    """
    return grpc.aio.insecure_channel(target, options=_OPTIONS)
