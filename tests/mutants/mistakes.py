"""Mistakes made by hand: in the queue's Lua, for which there is no tool, and those that operators
do not make, such as a line that is gone. Every one of them must be noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_STORE = "services/orchestrator/store"
_TESTS = "tests/orchestrator"

_LEASES = ("test_attempts", "test_queue")
_ENDS = ("test_attempts", "test_lifecycle")
_RESUMED = ("test_attempts", "test_resume", "test_skipped_steps")
_LIMITS = ("test_attempts", "test_quotas")
_CANCELS = ("test_attempts", "test_queue", "test_lifecycle")
_BATCHES = ("test_batches",)
_DELETED = ("test_deletion", "test_batches")
_DEADLINES = ("test_attempts", "test_early_ends")
_WEBHOOKS = ("test_outbox", "test_webhooks")
_TURNS = ("test_turns", "test_language_model")

_NOT_THE_OWNER = "redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not"
_NO_LEASE = " or not redis.call('ZSCORE', KEYS[2], ARGV[1])"
_CANCEL_WANTED = "return redis.call('HEXISTS', KEYS[1], 'cancel') + 1"
_SENT_TWICE = "if redis.call('EXISTS', KEYS[1]) == 1 then"
_PAST = "'-inf', now"

#: Script → text, what becomes of it, and the test files that must notice.
_SCRIPTS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "renew": (
        (_NOT_THE_OWNER, "not", _LEASES),
        (_NO_LEASE, "", _LEASES),
        (" + tonumber(ARGV[3])", "", _LEASES),
        (_CANCEL_WANTED, "return 1", _CANCELS),
    ),
    "record": (
        (_NOT_THE_OWNER, "not", _LEASES),
        (_NO_LEASE, "", _LEASES),
        (
            "if redis.call('HGET', KEYS[1], 'write') == ARGV[8] then",
            "if false then",
            ("test_connections",),
        ),
        ("if ARGV[i + 1] == '' then", "if false then", _ENDS),
        ("if ARGV[5] ~= '' then", "if false then", _ENDS),
        ("if ARGV[7] ~= '' then", "if false then", _RESUMED),
        ("'MAXLEN', '~', ARGV[3]", "'MAXLEN', 1", ("test_events",)),
        (f"'event', ARGV[4])\nend\n{_CANCEL_WANTED}", "'event', ARGV[4])\nend\nreturn 1", _CANCELS),
    ),
    "finish": (
        (_NOT_THE_OWNER, "not", _LEASES),
        (_NO_LEASE, "", _LEASES),
        ("redis.call('ZREM', KEYS[2], ARGV[1])", "", _LEASES),
        ("if ARGV[4] ~= '' then", "if false then", _ENDS),
        (
            "redis.call('XADD', KEYS[3], '*', 'event', cjson.encode(event))",
            "",
            ("test_attempts", "test_events"),
        ),
    ),
    "expired": (
        ("if looked and now - looked > ARGV[1] / 2 then", "if false then", _LEASES),
        ("'GT', now + ARGV[1]", "'GT', now", _LEASES),
        ("'GT', ", "", _LEASES),
        (f"{_PAST}))", "'-inf', '+inf'))", _LEASES),
        ("redis.call('SET', KEYS[2], now)", "", _LEASES),
    ),
    "requeue": (
        ("redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not lease", "not lease", _LEASES),
        ("tonumber(lease) > now or ", "", _LEASES),
        (" or now - looked > ARGV[8] / 2", "", _LEASES),
        ("redis.call('ZREM', KEYS[2], ARGV[1])", "", _LEASES),
        ("redis.call('HSETNX', KEYS[1], 'alone', 1) == 0", "false", _LEASES),
        ("attempt = redis.call('HINCRBY', KEYS[1], 'attempt', -1)", "", _LEASES),
        ("spent >= tonumber(ARGV[4])", "spent > tonumber(ARGV[4])", _LEASES),
        ("local progress = got_further(KEYS[1])", "local progress = false", _LEASES),
        ("redis.call('HDEL', KEYS[1], 'failed_on')", "", _LEASES),
        ("or #failed_on > 1", "or #failed_on > 2", _LEASES),
        ("redis.call('HSET', job, 'reached', newest)", "", _LEASES),
        (" * 2 ^ math.max(spent - 1, 0)", "", _LEASES),
        ("redis.call('HEXISTS', KEYS[1], 'checkpoints') == 0", "false", _LEASES),
        ("(used_up or ", "(", _LEASES),
        ("now + ARGV[5]", "now + 0 * ARGV[5]", _LEASES),
        ("redis.call('RPUSH', KEYS[5], cause)", "", _LEASES),
        ("'LRANGE', KEYS[5], 0, -1", "'LRANGE', KEYS[5], -1, -1", _ENDS),
    ),
    "promote": (
        (_PAST, "'-inf', '+inf'", _LEASES),
        ("redis.call('ZREM', KEYS[1], id)", "", _LEASES),
        ("redis.call('HDEL', ARGV[1] .. id, 'waiting_for')", "", _LEASES),
    ),
    "claim": (
        ("tonumber(head[2]) < best_rank", "tonumber(head[2]) > best_rank", _LEASES),
        ("redis.call('ZREM', best_queue, best)", "", _LEASES),
        ("redis.call('HEXISTS', job, 'alone') == 1", "false", _LEASES),
        ("not for_others(head[1])", "true", _LEASES),
        ("worker.generator == generator", "true", _LEASES),
        ("if not reached[vlm] then", "if false then", _LEASES),
        ("count < tonumber(limit)", "count <= tonumber(limit)", _LIMITS),
        ("redis.call('SADD', held_key(KEYS[3], owner), id)", "", _LIMITS),
        ("redis.call('INCR', KEYS[2]) .. '-' .. ARGV[6]", "redis.call('INCR', KEYS[2])", _LEASES),
        ("claimed[1] == ARGV[6]", "false", _LEASES),
        ("other.running < running", "other.running <= running", _LEASES),
        ("and other.queues[queue]", "", _LEASES),
        ("other.till < now", "false", _LEASES),
        ("< tonumber(ARGV[7])", "< 3600000", _LEASES),
        ("waits(running + 1)", "", _LEASES),
        ("'attempt', 1)", "'attempt', 2)", _LEASES),
        ("now + tonumber(ARGV[2])", "now", _LEASES),
        ("'HSETNX', job, 'started_at'", "'HSET', job, 'started_at'", _LEASES),
        ("'waiting_for', 'skipped'", "'waiting_for'", _RESUMED),
        ("redis.call('HEXISTS', job, 'alone'), now - since", "0, now - since", _LEASES),
    ),
    "cancel": (
        ("leave_queue(KEYS[4], KEYS[2], KEYS[1], ARGV[1])", "", _CANCELS),
        ("redis.call('HSETNX', KEYS[1], 'cancel', 1)", "", _CANCELS),
        ("if status == 'queued' then", "if status ~= 'running' then", _CANCELS),
    ),
    "delete": (
        ("if not status or not FINAL[status] then", "if not status then", _DELETED),
        ("redis.call('ZREM', index, id)", "", _DELETED),
        ("redis.call('ZREM', index .. ':status:' .. status, id)", "", _DELETED),
        ("redis.call('SADD', KEYS[6], id)", "", _DELETED),
        ("string.sub(known, 1, #whose) == whose", "true", _DELETED),
        ("redis.call('EXISTS', batch_index(jobs, batch)) == 0", "true", _DELETED),
        ("redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])", "", _DELETED),
    ),
    "enqueue": (
        ("- job.priority * 1e12", "+ job.priority * 1e12", ("test_attempts", "test_lifecycle")),
        ("queued + more > tonumber(limits[1])", "queued > tonumber(limits[1])", _LIMITS),
        ("used + work > limits[2] * 1000", "work > limits[2] * 1000", _LIMITS),
        ("{'queued', 'running'}", "{'queued'}", _LIMITS),
        ("redis.call('ZADD', index, 0, id)", "", _BATCHES),
        ("seconds * 1000", "seconds", _DEADLINES),
        ("redis.call('SADD', place.queues, job.queue)", "", _LEASES),
    ),
    "indexes": (
        ("redis.call('HGET', job, 'key') or 'anonymous'", "'anonymous'", _LIMITS),
        ("redis.call('ZREM', index .. ':status:' .. before, id)", "", _LIMITS),
        ("redis.call('SREM', held_key(jobs, owner_of(job)), id)", "", _LIMITS),
        ("redis.call('ZREM', redis.call('HGET', job, 'queue'), id)", "", _CANCELS),
        ("redis.call('ZREM', delayed, id)", "", _CANCELS),
        ("if before == 'running' and status ~= 'running' then", "if false then", _LIMITS),
        ("redis.call('ZREM', jobs .. ':deadlines', id)", "", _DEADLINES),
        ("cancel ~= '1'", "cancel == '1'", _DEADLINES),
        ("redis.call('ZADD', jobs .. ':finished', now, id)", "", _DELETED),
        ("redis.call('ZADD', jobs .. ':finished:events', now, id)", "", _DELETED),
        ("redis.call('HEXISTS', job, 'webhook_url') == 1", "false", _WEBHOOKS),
    ),
    "overdue": (
        ("'-inf', milliseconds()", "'-inf', '+inf'", _DEADLINES),
        ("redis.call('HSETNX', job, 'cancel', sentence)", "", _DEADLINES),
        ("leave_queue(KEYS[1], KEYS[2], job, id)", "", _DEADLINES),
        ("redis.call('ZREM', deadlines, id)", "", _DEADLINES),
    ),
    "submit": (
        (_SENT_TWICE, "if false then", _LEASES),
        ("if known then", "if false then", _LIMITS),
        ("ARGV[6], 1, ARGV[7])", "ARGV[6], 0, ARGV[7])", _LIMITS),
        ("ARGV[6], 1, ARGV[7])", "ARGV[6], 1, 0)", _LIMITS),
    ),
    "submit_batch": (
        (_SENT_TWICE, "if false then", ("test_connections",)),
        ("if known then", "if false then", _BATCHES),
        ("quota_exceeded(place, KEYS[6], owner, size, ARGV[10])", "nil", _BATCHES),
        ("owner, size, ARGV[10])", "owner, size, 0)", _LIMITS),
        ("'key', owner,", "'key', 'anonymous',", ("test_batches", "test_strangers")),
    ),
    "turn": (
        (">= tonumber(ARGV[2])", "> tonumber(ARGV[2])", _TURNS),
        ("redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)", "", _TURNS),
        ("not redis.call('ZSCORE', KEYS[1], ARGV[1]) and ", "", _TURNS),
        ("now + ARGV[3]", "now", _TURNS),
    ),
    "reporter": (
        ("reporter ~= ARGV[1]", "false", ("test_metrics",)),
        ("redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])", "", ("test_metrics",)),
    ),
    "snapshot": (
        ("if not is_left_out(name) then", "if true then", ("test_backup",)),
        ("return redis.call('HVALS', name)", "return {}", ("test_backup",)),
        ("redis.call('HGET', name, 'status') or ''", "''", ("test_backup",)),
    ),
    "webhook_claim": (
        ("redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)", "", _WEBHOOKS),
        (_PAST, "'-inf', '+inf'", _WEBHOOKS),
        ("'webhook_attempts', 1)", "'webhook_attempts', 2)", _WEBHOOKS),
    ),
    "webhook_settle": (
        ("redis.call('HGET', KEYS[1], 'webhook_attempts') ~= ARGV[2]\n    or ", "", _WEBHOOKS),
        ("milliseconds() + tonumber(ARGV[5])", "milliseconds()", _WEBHOOKS),
        ("redis.call('ZREM', KEYS[2], ARGV[1])", "", _WEBHOOKS),
        ("redis.call('HDEL', KEYS[1], 'webhook_secret')", "", _WEBHOOKS),
        ("redis.call('HDEL', KEYS[1], 'webhook_error')", "", _WEBHOOKS),
    ),
}

_TRAINING = "services/generator/training.py"
_ARITHMETIC = ("tests/generator/test_step_arithmetic.py",)
_API = "services/orchestrator/api"


@dataclass(frozen=True)
class Mistake:
    """``text``, which is in the file once, becomes another; one of ``tests`` must fail."""

    path: str
    text: str
    becomes: str
    tests: tuple[str, ...]


def _lua() -> Iterator[Mistake]:
    for name, rows in _SCRIPTS.items():
        for text, becomes, tests in rows:
            files = tuple(f"{_TESTS}/{test}.py" for test in tests)
            yield Mistake(f"{_STORE}/{name}.lua", text, becomes, files)


MISTAKES = (
    *_lua(),
    Mistake(
        _TRAINING,
        "gradient.to(images, non_blocking=True) / accumulate",
        "gradient.to(images)",
        _ARITHMETIC,
    ),
    Mistake(_TRAINING, "self._spec.optimizer.max_grad_norm", "float('inf')", _ARITHMETIC),
    Mistake(_TRAINING, "step, micro_step, len(schedule)", "step, 0, len(schedule)", _ARITHMETIC),
    Mistake(
        _TRAINING,
        "draws.noise_seeds(optimizer, step, micro_step)",
        "draws.noise_seeds(optimizer, step, 0)",
        _ARITHMETIC,
    ),
    Mistake(
        _TRAINING,
        "        self.skip()\n        return Learned(grad_norm, changed)",
        "        return Learned(grad_norm, changed)",
        ("tests/generator/test_step_arithmetic.py", "tests/generator/test_resume.py"),
    ),
    Mistake(
        _TRAINING,
        "        self._distances.clear()\n        self._optimizer.zero_grad(set_to_none=True)",
        "        self._distances.clear()",
        ("tests/generator/test_step_arithmetic.py", "tests/generator/test_memory.py"),
    ),
    Mistake(
        "services/generator/draws.py",
        "(_TIMESTEP, step, micro_step)",
        "(_TIMESTEP, step)",
        ("tests/generator/test_draws.py", *_ARITHMETIC),
    ),
    Mistake(
        f"{_API}/batches.py",
        '"/{batch_id}/cancel", dependencies=[SUBMIT]',
        '"/{batch_id}/cancel", dependencies=[READ]',
        (f"{_TESTS}/test_scopes.py",),
    ),
    Mistake(
        f"{_API}/body_limit.py",
        "min(limit, caller.quotas.body_bytes)",
        "caller.quotas.body_bytes",
        (f"{_TESTS}/test_body_limit.py",),
    ),
)
