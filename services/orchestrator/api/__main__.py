"""``python -m services.orchestrator.api --port 8000 --redis-url redis://127.0.0.1:6379/0``"""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    with import_first():
        from services.orchestrator.api.service import run
    run()
