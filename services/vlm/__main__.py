"""``python -m services.vlm --preset tiny-idefics2 --port 50052``"""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    # transformers wants scipy for losses that no VLM here has.
    with import_first("scipy"):
        from services.vlm.service import run
    run()
