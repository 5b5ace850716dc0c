"""``python -m services.generator --preset tiny-flux --port 50051``"""

from __future__ import annotations

from services.common.imports import import_first

if __name__ == "__main__":
    # transformers wants scipy for losses that no text encoder has; diffusers, for samplers.
    with import_first("scipy"):
        import transformers.modeling_utils  # noqa: F401
    with import_first():
        from services.generator.service import run
    run()
