# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A request wakes a model worker that has nothing to do."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Awaitable, Iterator

import pytest
import uvloop
import zmq
from max.serve.worker_interface import sleep_with_backoff
from max.serve.worker_interface._zmq_queue import ZmqConfig, ZmqPullSocket, ZmqPushSocket

LONG = 10.0
"""Seconds that no test may take."""


@pytest.fixture
def ends() -> Iterator[tuple[ZmqPushSocket[int], ZmqPullSocket[int]]]:
    config = ZmqConfig[int](int)
    pull, push = config.pull(), config.push()
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            push.put_nowait(0)
            break
        except zmq.Again:
            time.sleep(0.001)
    while time.monotonic() < deadline:
        try:
            assert pull.get_nowait() == 0
            break
        except queue.Empty:
            time.sleep(0.001)
    yield push, pull
    push.close()
    pull.close()


def seconds(work: Awaitable[object]) -> float:
    """How long it took, on the event loop that workers run on."""

    async def timed() -> float:
        start = time.monotonic()
        await asyncio.wait_for(work, LONG)
        return time.monotonic() - start

    return uvloop.run(timed())


def test_a_message_ends_the_sleep(ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]]) -> None:
    push, pull = ends

    async def sleep_while_one_is_sent() -> None:
        for number in range(20):
            asyncio.get_running_loop().call_later(0.01, push.put_nowait, number)
            await pull.sleep_until_message(LONG)
            # The descriptor may tell of the connection before the message is in.
            await asyncio.sleep(0.01)
            assert pull.get_nowait() == number

    assert seconds(sleep_while_one_is_sent()) < LONG / 2


@pytest.mark.parametrize("duration", [0.0, 0.05])
def test_without_one_it_sleeps(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]], duration: float
) -> None:
    _, pull = ends
    assert seconds(pull.sleep_until_message(duration)) >= 0.9 * duration


def test_one_that_nobody_took_does_not_keep_the_worker_awake(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]],
) -> None:
    push, pull = ends
    push.put_nowait(1)
    time.sleep(0.05)
    assert seconds(pull.sleep_until_message(0.05)) >= 0.045
    assert pull.get_nowait() == 1


def test_an_idle_worker_sleeps_at_its_queue(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pull = ends
    slept = []

    async def record(_: object, duration: float) -> None:
        slept.append(duration)

    monkeypatch.setattr(ZmqPullSocket, "sleep_until_message", record)
    for idle in (0, 3, 99):
        seconds(sleep_with_backoff(idle, pull))
    assert slept == pytest.approx([0, 0.003, 0.01])


def test_another_queue_is_slept_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def record(duration: float) -> None:
        slept.append(duration)

    monkeypatch.setattr(asyncio, "sleep", record)
    seconds(sleep_with_backoff(5, object()))
    seconds(sleep_with_backoff(5))
    assert slept == pytest.approx([0.005, 0.005])
