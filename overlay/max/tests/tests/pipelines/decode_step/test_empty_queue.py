# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What a model worker finds in its queues, which are empty in most steps."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import pytest
import zmq
from max.serve.worker_interface._zmq_queue import ZmqConfig, ZmqPullSocket, ZmqPushSocket

SECONDS = 10.0
Result = TypeVar("Result")


@pytest.fixture
def ends() -> Iterator[tuple[ZmqPushSocket[int], ZmqPullSocket[int]]]:
    config = ZmqConfig[int](int)
    pull, push = config.pull(), config.push()
    yield push, pull
    push.close()
    pull.close()


def wait(attempt: Callable[[], Result]) -> Result:
    """Tries again until the other end is connected, or has sent something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            return attempt()
        except (queue.Empty, zmq.Again):
            time.sleep(0.001)
    raise TimeoutError


def test_messages_come_in_order_and_none_is_lost(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]],
) -> None:
    push, pull = ends
    for number in range(300):
        wait(partial(push.put_nowait, number))
    assert [wait(pull.get_nowait) for _ in range(300)] == list(range(300))
    with pytest.raises(queue.Empty):
        pull.get_nowait()
    wait(partial(push.put_nowait, 300))
    assert wait(pull.get_nowait) == 300


def test_an_empty_queue_is_not_received_from(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pull = ends
    received = []
    receive = zmq.Socket.recv_multipart

    def counted(self: zmq.Socket[bytes], *arguments: object, **options: object) -> object:
        received.append(self)
        return receive(self, *arguments, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(zmq.Socket, "recv_multipart", counted)
    for _ in range(3):
        with pytest.raises(queue.Empty):
            pull.get_nowait()
    assert not received


def test_a_closed_queue_says_so(
    ends: tuple[ZmqPushSocket[int], ZmqPullSocket[int]],
) -> None:
    _, pull = ends
    pull.close()
    with pytest.raises(RuntimeError, match="closed"):
        pull.get_nowait()
