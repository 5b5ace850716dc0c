"""How many requests of one owner may wait for words at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from services.orchestrator.store.quotas import QuotaExceeded
from services.orchestrator.store.redis import Client, turns_key
from services.orchestrator.store.scripts import script
from services.orchestrator.store.turns import Turns


async def test_an_owner_has_so_many_turns_and_others_have_their_own(redis: Client) -> None:
    turns = Turns(redis)
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(turns.held("me", 2, seconds=3600))
        with pytest.raises(QuotaExceeded):
            await held.enter_async_context(turns.held("me", 2, seconds=3600))
        await held.enter_async_context(turns.held("other", 2, seconds=3600))
        await held.enter_async_context(turns.held("me", None, seconds=3600))
    async with turns.held("me", 1, seconds=3600):
        pass


async def test_a_turn_that_nobody_gives_back_ends(redis: Client) -> None:
    turns, gone = Turns(redis), AsyncExitStack()
    await gone.enter_async_context(turns.held("me", 1, seconds=0.05))
    await asyncio.sleep(0.1)
    async with turns.held("me", 1, seconds=3600):
        pass
    await gone.aclose()


async def test_a_command_that_is_sent_twice_takes_one_turn(redis: Client) -> None:
    take, key = script(redis, "turn"), turns_key("me")
    assert [await take(keys=[key], args=["turn", 1, 3_600_000]) for _ in range(2)] == [1, 1]
    assert await take(keys=[key], args=["another", 1, 3_600_000]) == 0
