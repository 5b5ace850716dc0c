"""Mutants that no test can notice, or none should: each with its reason, so it is not counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equivalent:
    """``line`` is a line of the file, stripped; any mutation of it, unless ``becomes`` is one."""

    path: str
    line: str
    why: str
    becomes: str = ""


_PACE = "a pace: how long something is waited for; another number is as right"

EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent("services/orchestrator/worker/app.py", "_END_SECONDS = 15.0", _PACE),
    Equivalent("services/orchestrator/worker/app.py", "_DESCRIBE_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/worker/app.py", "_HEARTBEAT_SECONDS = 10.0", _PACE),
    Equivalent(
        "services/orchestrator/worker/lease.py",
        "_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)",
        _PACE,
    ),
    Equivalent("services/orchestrator/worker/runner.py", "SUSPEND_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/worker/vlm.py", "SECONDS = 120.0", _PACE),
    Equivalent("services/orchestrator/webhooks/addresses.py", "_RESOLVE_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/webhooks/post.py", "POST_SECONDS = 10.0", _PACE),
    Equivalent("services/orchestrator/webhooks/post.py", "_CONNECT_SECONDS = 4.0", _PACE),
    Equivalent(
        "services/orchestrator/webhooks/post.py",
        "if not 200 <= status < 300:",
        "1xx are no answers: whoever reads them waits for the one behind",
        "if not 199 <= status < 300:",
    ),
    Equivalent(
        "dualprocess/schemas/webhooks.py",
        "StringConstraints(strip_whitespace=True, min_length=1, max_length=2000),",
        "what is so short is no https address either",
        "StringConstraints(strip_whitespace=True, min_length= 2, max_length=2000),",
    ),
    Equivalent(
        "services/vlm/guide.py",
        "placeholder = vlm.image_placeholder(pixel_values[:1])",
        "it looks at the shape of one image only",
    ),
    Equivalent("dualprocess/protocol.py", "RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)", _PACE),
    Equivalent("dualprocess/protocol.py", "LONGEST_PAUSE_SECONDS = 30.0", _PACE),
    Equivalent("dualprocess/client.py", "timeout: float = 30.0,", _PACE),
    Equivalent("dualprocess/async_client.py", "timeout: float = 30.0,", _PACE),
    Equivalent("services/orchestrator/worker/runner.py", "_RENEWALS = 5", _PACE),
    Equivalent(
        "services/orchestrator/worker/lease.py",
        "await pause(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)], self.cancel_wanted)",
        _PACE,
    ),
    Equivalent("services/orchestrator/worker/lease.py", "tries += 1", _PACE, "tries += 2"),
    Equivalent(
        "services/orchestrator/worker/scoring.py",
        "@property",
        "a protocol's, which nobody runs; mypy says whether it fits",
    ),
    Equivalent(
        "services/orchestrator/worker/app.py",
        "self._waits = False",
        "it decides whether a line of the log is written",
    ),
    Equivalent(
        "services/generator/training.py",
        "self._optimizer.zero_grad(set_to_none=True)",
        "each step has a backward pass: to add to zeros or to nothing is the same",
        "self._optimizer.zero_grad(set_to_none=False)",
    ),
    Equivalent(
        "services/vlm/preprocess.py",
        "@lru_cache(maxsize=16)",
        "it decides what is computed twice, not what comes of it",
    ),
    Equivalent(
        "services/generator/lora/layers.py",
        "A, B = (_as_layer(matrix, weight) for matrix, weight in zip(lora, halves, strict=True))",
        "a Lora has two halves, and a layer two weights",
        "A, B = (_as_layer(matrix, weight) for matrix, weight in zip(lora, halves, strict=False))",
    ),
    Equivalent(
        "services/generator/training.py",
        "@dataclass(frozen=True)",
        "nobody changes a field; mypy would say so",
        "@dataclass(frozen=False)",
    ),
    Equivalent(
        "services/vlm/preprocess.py",
        "outward = (above & (gradient < 0)) | (below & (gradient > 0))",
        "a gradient of zero stays zero",
        "outward = (above & (gradient <= 0)) | (below & (gradient > 0))",
    ),
    Equivalent(
        "services/vlm/preprocess.py",
        "outward = (above & (gradient < 0)) | (below & (gradient > 0))",
        "a gradient of zero stays zero",
        "outward = (above & (gradient < 0)) | (below & (gradient >= 0))",
    ),
)
