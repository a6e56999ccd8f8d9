# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the API server's tasks measure goes to the telemetry process together, and all of it."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from max.serve.telemetry import process_controller
from max.serve.telemetry.metrics import MaxMeasurement, MetricClient
from max.serve.telemetry.process_controller import ProcessTelemetryController


def measure(client: MetricClient, value: int) -> None:
    client.send_measurement(MaxMeasurement("maxserve.itl", value))


def packets(waiting: Any) -> list[list[int]]:
    found = []
    while not waiting.empty():
        found.append([measurement.value for measurement in waiting.get()])
    return found


@pytest.fixture
def waiting() -> Any:
    return queue.Queue()


@pytest.fixture
def client(waiting: Any) -> MetricClient:
    return ProcessTelemetryController(waiting).Client()


def test_measurements_wait_for_the_interval(
    waiting: Any, client: MetricClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_controller, "_FLUSH_INTERVAL_S", 0.05)

    async def serve() -> None:
        for value in range(3):
            measure(client, value)
            await asyncio.sleep(0)
        assert packets(waiting) == []
        await asyncio.sleep(0.2)
        assert packets(waiting) == [[0, 1, 2]]
        measure(client, 3)
        await asyncio.sleep(0.2)
        assert packets(waiting) == [[3]]
        await asyncio.sleep(0.2)
        assert packets(waiting) == []

    asyncio.run(serve())


def test_a_flush_before_the_timer_loses_and_repeats_nothing(
    waiting: Any, client: MetricClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_controller, "_FLUSH_INTERVAL_S", 0.05)

    async def serve() -> None:
        measure(client, 0)
        client.flush()
        measure(client, 1)
        await asyncio.sleep(0.2)

    asyncio.run(serve())
    assert packets(waiting) == [[0], [1]]


def test_other_threads_do_not_wait(waiting: Any, client: MetricClient) -> None:
    async def serve() -> None:
        measure(client, 0)
        thread = threading.Thread(target=measure, args=(client, 1))
        thread.start()
        thread.join()
        assert packets(waiting) == [[1]]
        client.flush()

    asyncio.run(serve())
    assert packets(waiting) == [[0]]


def test_without_a_loop_nothing_waits(waiting: Any, client: MetricClient) -> None:
    measure(client, 0)
    assert packets(waiting) == [[0]]
