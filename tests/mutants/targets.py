"""The code that must not be wrong, and the test files that must notice if it is.

A file that moves is renamed here, and in ``mistakes`` and ``equivalent``; ``test_tables`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Python ``files``; a mistake in one of them must break one of ``tests``, quickest first."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


_ORCHESTRATOR = "services/orchestrator"
_GENERATOR = "services/generator"
_VLM = "services/vlm"

LORA = f"{_GENERATOR}/lora/adapter.py"

TARGETS = (
    Target(
        "worker",
        (
            f"{_ORCHESTRATOR}/worker/runner.py",
            f"{_ORCHESTRATOR}/worker/lease.py",
            f"{_ORCHESTRATOR}/worker/optimize.py",
            f"{_ORCHESTRATOR}/worker/run.py",
            f"{_ORCHESTRATOR}/worker/app.py",
            f"{_ORCHESTRATOR}/worker/failures.py",
            f"{_ORCHESTRATOR}/worker/company.py",
            f"{_ORCHESTRATOR}/worker/checkpoints.py",
            f"{_ORCHESTRATOR}/worker/enough.py",
            f"{_ORCHESTRATOR}/worker/scoring.py",
            f"{_ORCHESTRATOR}/worker/vlm.py",
        ),
        (
            "tests/orchestrator/test_attempts.py",
            "tests/orchestrator/test_lifecycle.py",
            "tests/orchestrator/test_skipped_steps.py",
            "tests/orchestrator/test_early_ends.py",
            "tests/orchestrator/test_resume.py",
            "tests/orchestrator/test_full_store.py",
            "tests/orchestrator/test_collateral.py",
            "tests/orchestrator/test_vlms.py",
        ),
    ),
    Target(
        "quotas and scopes",
        (
            f"{_ORCHESTRATOR}/api/auth.py",
            f"{_ORCHESTRATOR}/api/body_limit.py",
            f"{_ORCHESTRATOR}/api/quotas.py",
            f"{_ORCHESTRATOR}/store/keys.py",
            f"{_ORCHESTRATOR}/store/quotas.py",
            f"{_ORCHESTRATOR}/work.py",
        ),
        (
            "tests/orchestrator/test_scopes.py",
            "tests/orchestrator/test_body_limit.py",
            "tests/orchestrator/test_keys.py",
            "tests/orchestrator/test_quotas.py",
            "tests/orchestrator/test_work.py",
            "tests/orchestrator/test_strangers.py",
            "tests/orchestrator/test_batches.py",
        ),
    ),
    Target(
        "webhooks",
        (
            f"{_ORCHESTRATOR}/webhooks/signature.py",
            f"{_ORCHESTRATOR}/webhooks/addresses.py",
            f"{_ORCHESTRATOR}/webhooks/post.py",
            "dualprocess/schemas/webhooks.py",
        ),
        ("tests/orchestrator/test_webhooks.py",),
    ),
    Target(
        "training",
        (
            f"{_GENERATOR}/training.py",
            f"{_GENERATOR}/draws.py",
            f"{_GENERATOR}/step.py",
        ),
        (
            "tests/generator/test_draws.py",
            "tests/generator/test_step_arithmetic.py",
            "tests/generator/test_optimize.py",
            "tests/generator/test_resume.py",
            "tests/generator/test_guard.py",
            "tests/generator/test_own_lora.py",
            "tests/generator/test_start.py",
        ),
    ),
    Target(
        "LoRA",
        (
            LORA,
            f"{_GENERATOR}/adapters/adapted.py",
            f"{_GENERATOR}/adapters/low_rank.py",
            f"{_GENERATOR}/adapters/switchboard.py",
            f"{_GENERATOR}/lora/export.py",
            f"{_GENERATOR}/lora/kohya.py",
            f"{_GENERATOR}/lora/layers.py",
            f"{_GENERATOR}/lora/loaded.py",
            f"{_GENERATOR}/lora/read.py",
            f"{_GENERATOR}/lora/safetensors_header.py",
        ),
        (
            "tests/generator/test_low_rank.py",
            "tests/generator/test_switchboard.py",
            "tests/generator/test_lora.py",
            "tests/generator/test_layouts.py",
            "tests/generator/test_start.py",
            "tests/generator/test_kohya.py",
            "tests/generator/test_own_lora.py",
            "tests/generator/test_memory.py",
        ),
    ),
    Target(
        "VLM",
        (
            f"{_VLM}/answers.py",
            f"{_VLM}/conversation.py",
            f"{_VLM}/preprocess.py",
            f"{_VLM}/guide.py",
        ),
        (
            "tests/vlm/test_preprocess.py",
            "tests/vlm/test_recorded.py",
            "tests/vlm/test_families.py",
            "tests/vlm/test_wire.py",
            "tests/vlm/test_conversation.py",
            "tests/vlm/test_guard.py",
        ),
    ),
    Target(
        "SDK",
        ("dualprocess/protocol.py", "dualprocess/client.py", "dualprocess/async_client.py"),
        (
            "tests/client/test_client.py",
            "tests/client/test_routes.py",
            "tests/client/test_words.py",
            "tests/client/test_setup.py",
        ),
    ),
)
