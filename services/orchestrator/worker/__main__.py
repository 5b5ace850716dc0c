"""``python -m services.orchestrator.worker --generator 127.0.0.1:50051 --vlms '{...}'``"""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    with import_first():
        from services.orchestrator.worker.service import run
    run()
