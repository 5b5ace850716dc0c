"""The limit of open files of this process. Every connection is an open file."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

#: Files for other uses: Redis, the store, libraries and logs.
_OTHERS = 200


def allow_files(connections: int) -> None:
    """Raises the limit for this many connections, as far as it may; warns if that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHERS
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    allowed = needed if hard == unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "this process may open %d files, but --connections %d needs %d: raise the limit "
            "(ulimit -n, LimitNOFILE), or lower --connections",
            allowed,
            connections,
            needed,
        )
