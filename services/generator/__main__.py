"""``python -m services.generator --preset tiny-flux --port 50051``"""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    with import_first():
        from services.generator.service import run
    run()
