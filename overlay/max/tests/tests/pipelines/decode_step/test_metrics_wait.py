# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What steps measure goes to the telemetry process together, in order, and all of it."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from max.serve.telemetry import process_controller
from max.serve.telemetry.metrics import METRICS, MaxMeasurement, NoopClient
from max.serve.telemetry.process_controller import ProcessMetricClient

Packets = list[list[int]]


class Telemetry:
    """A client, and what arrives at its queue."""

    def __init__(self) -> None:
        waiting: Any = queue.Queue()
        self.queue = waiting
        self.client = ProcessMetricClient(waiting)
        self.measured = 0

    def measure(self) -> None:
        self.client.send_measurement(MaxMeasurement("maxserve.batch_size", self.measured))
        self.measured += 1

    def step(self) -> None:
        with self.client.transaction(), self.client.transaction():
            self.measure()
            self.measure()

    def packets(self) -> Packets:
        packets = []
        while not self.queue.empty():
            packets.append([measurement.value for measurement in self.queue.get()])
        return packets


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    monkeypatch.setattr(process_controller, "_FLUSH_INTERVAL_S", 3600.0)
    return Telemetry()


def test_steps_wait_for_each_other(telemetry: Telemetry) -> None:
    telemetry.step()
    assert telemetry.packets() == [[0, 1]]
    telemetry.step()
    telemetry.step()
    assert telemetry.packets() == []
    telemetry.client.flush()
    assert telemetry.packets() == [[2, 3, 4, 5]]
    telemetry.client.flush()
    assert telemetry.packets() == []


def test_none_waits_longer_than_the_interval(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry.step()
    telemetry.step()
    assert telemetry.packets() == [[0, 1]]
    monkeypatch.setattr(process_controller, "_FLUSH_INTERVAL_S", 0.0)
    # An empty transaction, as an idle pass makes, is enough.
    with telemetry.client.transaction():
        pass
    assert telemetry.packets() == [[2, 3]]


def test_one_outside_a_transaction_does_not_overtake(telemetry: Telemetry) -> None:
    telemetry.step()
    telemetry.step()
    telemetry.measure()
    telemetry.measure()
    assert telemetry.packets() == [[0, 1], [2, 3], [4], [5]]


def test_a_worker_without_work_flushes(telemetry: Telemetry) -> None:
    METRICS.configure(telemetry.client)
    try:
        telemetry.step()
        telemetry.step()
        METRICS.flush()
    finally:
        METRICS.configure(NoopClient())
    METRICS.flush()
    assert telemetry.packets() == [[0, 1], [2, 3]]
