"""What a step costs, by phase, in two services and in one process, run in turn.

    python -m benchmarks.step --steps 20 --rounds 5 --save

Both do the same arithmetic on the same models, seed and spec; the services add the wire: bytes of
image and gradient, gRPC, two processes. Quote the ratio: machines are noisy, and both sides feel
the same noise.
"""

from __future__ import annotations

from pathlib import Path

PHASES = ("forward", "vlm", "wire", "backward", "total")
RESULTS = Path(__file__).parent / "results"
