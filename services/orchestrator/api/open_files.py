"""The files that this process may have open: every connection is one."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

#: For Redis, the store, libraries and logs.
_OTHERS = 200


def allow_files(connections: int) -> None:
    """Raises this process's own limit as far as it must and may; warns where that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHERS
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    allowed = needed if hard == unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "this process may open %d files, and --connections %d needs %d: raise the limit "
            "(ulimit -n, LimitNOFILE), or give fewer --connections",
            allowed,
            connections,
            needed,
        )
