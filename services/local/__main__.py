"""``python -m services.local``, which ``dualprocess up`` runs: the whole service on this
machine."""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    with import_first():
        from services.local.service import run
    run()
