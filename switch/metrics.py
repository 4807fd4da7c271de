"""What the core counts, as Prometheus reads it.

The core keeps plain numbers; a scrape takes one JSON snapshot of them (`Statistics`) and turns it into metric families. So a
figure is in one place only, and a dashboard costs the hot path nothing between scrapes.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from switch.follow import Progress

__all__ = ["Histogram", "JournalStatistics", "Statistics", "exposition"]

MICROSECONDS: Final = 1e6


class Histogram(msgspec.Struct, frozen=True):
    """Counts by bucket (not cumulated), one more than there are upper bounds; the last bucket has none."""

    bounds: list[int]
    counts: list[int]
    sum: int
    count: int


class JournalStatistics(msgspec.Struct, frozen=True):
    """The journal since the switch started."""

    mode: str
    """How a write is made durable."""
    segment: int
    segment_bytes_left: int
    prepared: bool
    """Whether the next segment is ready."""
    batches: int
    bytes: int
    torn_bytes: int
    """Bytes of an interrupted write that the start cleared."""
    sync: Histogram
    """Microseconds from a batch's hand-over to its being durable."""
    batch_records: Histogram


class Connections(msgspec.Struct, frozen=True):
    """Terminals' connections since the switch started."""

    open: int
    accepted: int
    closed: dict[str, int]
    bytes_read: int
    bytes_sent: int


class Statistics(msgspec.Struct, frozen=True):
    """A snapshot of `Core.statistics`."""

    position: int
    durable: int
    business_date: str
    clock_ahead_days: int
    """Days by which the clock is ahead of the business date and is not followed; 0 while it is."""
    room: bool
    """Whether the journal has room for another record."""
    journal: JournalStatistics
    requests: list[tuple[str, str, int]]
    """Operation, response code, count."""
    latency: Histogram
    """Microseconds from a request's first byte to its reply."""
    connections: Connections
    mac_failures: int
    waves: int
    debug_build: bool
    """Whether the core was built without optimization: its speed says nothing then."""
    entries: dict[str, int]
    memory: dict[str, int]
    """Bytes by part."""


class _Switch(Collector):
    def __init__(self, statistics: Callable[[], Statistics], progress: Callable[[], Progress]) -> None:
        self._statistics = statistics
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        now, settled = self._statistics(), self._progress()
        requests = CounterMetricFamily("switch_requests", "Messages by operation and response code.", labels=["operation", "response"])
        for operation, response, count in now.requests:
            requests.add_metric([operation, response], count)
        yield requests
        yield _histogram("switch_request_seconds", "From a request's first byte to its reply.", now.latency, MICROSECONDS)
        yield _histogram("switch_journal_sync_seconds", "From a batch's hand-over to its being durable.", now.journal.sync, MICROSECONDS)
        yield _histogram("switch_journal_batch_records", "Records in a batch.", now.journal.batch_records, 1)
        yield CounterMetricFamily("switch_journal_bytes", "Bytes written to the journal.", value=now.journal.bytes)
        mode = GaugeMetricFamily("switch_journal_mode", "How a write is made durable.", labels=["mode"])
        mode.add_metric([now.journal.mode], 1)
        yield mode
        yield GaugeMetricFamily("switch_journal_segment_bytes_left", "Room in the segment in use.", value=now.journal.segment_bytes_left)
        yield GaugeMetricFamily("switch_journal_next_segment_ready", "Whether the next segment is prepared.", value=now.journal.prepared)
        yield GaugeMetricFamily("switch_journal_room", "Whether the journal has room for another record.", value=now.room)
        yield GaugeMetricFamily("switch_journal_position", "The last record decided.", value=now.position)
        yield GaugeMetricFamily("switch_journal_durable_position", "The last record on stable storage.", value=now.durable)
        ahead = "Days by which the clock is ahead of the business date and is not followed; 0 while it is."
        yield GaugeMetricFamily("switch_clock_ahead_days", ahead, value=now.clock_ahead_days)
        yield GaugeMetricFamily("switch_settled_position", "The last record in PostgreSQL.", value=settled.settled)
        lag = max(0, now.durable - settled.settled)
        yield GaugeMetricFamily("switch_settlement_lag_records", "Durable records that PostgreSQL does not have yet.", value=lag)
        yield GaugeMetricFamily("switch_settlement_connected", "Whether the follower has its database.", value=settled.connected)
        yield GaugeMetricFamily("switch_snapshot_position", "The record of the newest snapshot.", value=settled.snapshot)
        since = max(0, now.durable - settled.snapshot)
        yield GaugeMetricFamily("switch_snapshot_lag_records", "Durable records that a start would replay.", value=since)
        failing = settled.upkeep_error is not None
        yield GaugeMetricFamily("switch_snapshot_failing", "Whether the last snapshot, or the removal after it, failed.", value=failing)
        yield GaugeMetricFamily("switch_connections", "Open connections of terminals.", value=now.connections.open)
        yield CounterMetricFamily("switch_connections_accepted", "Connections ever accepted.", value=now.connections.accepted)
        closed = CounterMetricFamily("switch_connections_closed", "Connections closed, by reason.", labels=["reason"])
        for reason, count in now.connections.closed.items():
            closed.add_metric([reason], count)
        yield closed
        yield CounterMetricFamily("switch_read_bytes", "Bytes read from terminals.", value=now.connections.bytes_read)
        yield CounterMetricFamily("switch_sent_bytes", "Bytes sent to terminals.", value=now.connections.bytes_sent)
        yield CounterMetricFamily("switch_mac_failures", "Messages whose MAC proved nothing.", value=now.mac_failures)
        yield CounterMetricFamily("switch_waves", "Calls into the core.", value=now.waves)
        entries = GaugeMetricFamily("switch_entries", "What the core holds, by kind.", labels=["kind"])
        memory = GaugeMetricFamily("switch_memory_bytes", "Memory of the core, by part.", labels=["part"])
        for family, values in ((entries, now.entries), (memory, now.memory)):
            for name, value in values.items():
                family.add_metric([name], value)
            yield family


def _histogram(name: str, documentation: str, histogram: Histogram, divisor: float) -> HistogramMetricFamily:
    bounds = [str(bound / divisor) for bound in histogram.bounds] + ["+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=histogram.sum / divisor)


def exposition(statistics: Callable[[], Statistics], progress: Callable[[], Progress]) -> Callable[[], bytes]:
    """A function that gives the page of `/metrics` as it is now, this process's own figures included."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Switch(statistics, progress))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)
