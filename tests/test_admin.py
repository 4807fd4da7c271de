"""The operators' door of a running switch: metrics that a Prometheus reads, health, and who may do what."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from prometheus_client.metrics_core import Metric

from switch.dialect import encode, frame
from tests.switch_process import CANTEEN, MERCHANTS, NO_DATABASE, Connection, Metrics, Switch, in_thread, until

FAMILIES = {
    "switch_requests": "counter",
    "switch_request_seconds": "histogram",
    "switch_journal_sync_seconds": "histogram",
    "switch_journal_batch_records": "histogram",
    "switch_journal_bytes": "counter",
    "switch_journal_mode": "gauge",
    "switch_journal_segment_bytes_left": "gauge",
    "switch_journal_next_segment_ready": "gauge",
    "switch_journal_room": "gauge",
    "switch_journal_position": "gauge",
    "switch_journal_durable_position": "gauge",
    "switch_settled_position": "gauge",
    "switch_settlement_lag_records": "gauge",
    "switch_settlement_connected": "gauge",
    "switch_connections": "gauge",
    "switch_connections_accepted": "counter",
    "switch_connections_closed": "counter",
    "switch_read_bytes": "counter",
    "switch_sent_bytes": "counter",
    "switch_mac_failures": "counter",
    "switch_waves": "counter",
    "switch_entries": "gauge",
    "switch_memory_bytes": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_cpu_seconds": "counter",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}


def is_a_histogram(family: Metric) -> bool:
    """Cumulated, ending in everything, with its own sum and count."""
    buckets = [(float(sample.labels["le"]), sample.value) for sample in family.samples if sample.name.endswith("_bucket")]
    (count,) = (sample.value for sample in family.samples if sample.name.endswith("_count"))
    (total,) = (sample.value for sample in family.samples if sample.name.endswith("_sum"))
    cumulated = all(low <= high and below <= above for (low, below), (high, above) in pairwise(buckets))
    return cumulated and buckets[-1] == (math.inf, count) and (total > 0) == (count > 0)


async def test_the_metrics_have_the_names_that_dashboards_use(switch: Switch) -> None:
    response = await switch.http("GET", "/metrics", token="")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    metrics = Metrics(response.text)
    assert {name: metrics.families[name].type for name in FAMILIES if name in metrics.families} == FAMILIES
    assert all(family.documentation for family in metrics.families.values())
    for name, kind in FAMILIES.items():
        if kind == "histogram":
            assert is_a_histogram(metrics.families[name]), name


async def test_the_metrics_count_what_happened(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    device, card = await switch.device(), await switch.card(cash=1000)
    before = await switch.metrics()
    read = sent = 0
    async with switch.connect() as connection:
        await device.sign_on(connection)
        purchase = device.purchase(card, 600)
        requests = [purchase, purchase, device.purchase(card, 600), device.balance(card), device.reversal(purchase), device.message("0700")]
        for request in requests:
            message = encode(request, device.key)
            read += len(frame(message))
            sent += len(frame((await connection.ask(message)).message))
        await connection.ask(encode(device.balance(card)))
        await connection.ask(encode(device.message("0800", de70="301")))
        during = await switch.metrics()
        assert during.value("switch_connections") == 1
    after = await until(switch.metrics, lambda now: now.value("switch_connections") == 0)

    answers = {
        ("sign_on", "00"): 1,
        ("purchase", "00"): 2,
        ("purchase", "51"): 1,
        ("balance", "00"): 1,
        ("balance", "63"): 1,
        ("reversal", "00"): 1,
        ("unknown", "12"): 1,
        ("echo", "00"): 1,
    }
    for (operation, response), count in answers.items():
        assert after.answered(operation, response) == count, (operation, response)
    assert after.sum("switch_requests_total") == sum(answers.values())
    assert after.value("switch_request_seconds_count") == sum(answers.values())
    assert after.value("switch_mac_failures_total") == 1
    assert (after.value("switch_connections_accepted_total"), after.closed("peer")) == (1, 1)
    journaled = 5  # sign-on, two purchases, reversal, the unknown message
    assert after.value("switch_journal_position") == before.value("switch_journal_position") + journaled
    assert after.value("switch_journal_durable_position") == after.value("switch_journal_position")
    assert after.value("switch_journal_batch_records_sum") == before.value("switch_journal_batch_records_sum") + journaled
    assert after.value("switch_journal_batch_records_count") == before.value("switch_journal_batch_records_count") + journaled
    assert after.value("switch_journal_sync_seconds_count") == after.value("switch_journal_batch_records_count")
    assert after.value("switch_journal_bytes_total") >= before.value("switch_journal_bytes_total") + journaled * 4096
    left = after.value("switch_journal_segment_bytes_left")
    assert before.value("switch_journal_segment_bytes_left") - left == after.value("switch_journal_bytes_total") - before.value(
        "switch_journal_bytes_total"
    )
    assert read < after.value("switch_read_bytes_total") < read + 600
    assert sent < after.value("switch_sent_bytes_total") < sent + 600
    entries = {kind: after.value("switch_entries", kind=kind) for kind in ("merchants", "terminals", "holders", "cards", "identities")}
    assert entries == {"merchants": 2, "terminals": 1, "holders": 1, "cards": 1, "identities": journaled}
    assert after.value("switch_settlement_connected") == 0
    assert after.value("switch_settlement_lag_records") == after.value("switch_journal_durable_position")
    assert 10 << 20 < after.value("process_resident_memory_bytes") < 200 << 20


async def test_health_and_readiness(switch: Switch) -> None:
    health = await switch.http("GET", "/healthz", token="")
    assert (health.status_code, health.json()) == (200, {"alive": True})
    ready = await until(
        lambda: switch.http("GET", "/readyz", token=""), lambda response: response.json()["settlement"]["error"] is not None
    )
    assert (ready.status_code, ready.json()["ready"]) == (200, True), "terminals are served without PostgreSQL"
    settlement = ready.json()["settlement"]
    assert (settlement["connected"], settlement["settled"]) == (False, 0)
    assert settlement["lag"] > 0
    assert "127.0.0.1" in settlement["error"]
    assert NO_DATABASE.startswith("postgresql://")


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", "é"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/statistics"), ("POST", "/v1/import"), ("GET", f"/v1/show/merchant/{CANTEEN}"), ("GET", "/v1/show/card/1")],
)
async def test_commands_need_the_token(switch: Switch, token: str, method: str, path: str) -> None:
    before = (await switch.metrics()).value("switch_journal_position")
    response = await switch.http(method, path, token=token)
    assert response.status_code == 401
    assert "admin token" in response.json()["error"]
    assert (await switch.metrics()).value("switch_journal_position") == before


async def test_what_is_not_there(switch: Switch) -> None:
    for path in ("/", "/metrics/", "/v1/show/card", "/v1/show/person/1", "/v1/show/card/9999999"):
        response = await switch.http("GET", path, follow_redirects=False)
        assert response.status_code in {404, 307}, path
    assert (await switch.http("GET", "/v1/import")).status_code == 405
    assert (await switch.http("POST", "/v1/import", content=b"nonsense")).status_code == 422
    assert (await switch.http("GET", "/v1/show/person/1")).json()["error"].startswith('"person" cannot be shown')


async def test_statistics(switch: Switch) -> None:
    found = (await switch.http("GET", "/v1/statistics")).json()
    assert found["entries"]["merchants"] == 2
    assert found["durable"] == found["position"]


async def test_an_operator_at_work_holds_up_nobody(switch: Switch, connection: Connection) -> None:
    """A file of thousands of cards and readings of the metrics, one after another, between the payments of a terminal."""
    device, card = await switch.device(), await switch.card()
    await device.sign_on(connection)
    rows = "\n".join(f"61{number:014},A{number},student,active,2099-12-31,1,0" for number in range(20_000))

    imported = {}

    async def work() -> None:
        imported.update(await switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{rows}\n"))
        for _ in range(20):
            await switch.metrics()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for amount in range(1, 101):
            assert (await device.ask(connection, device.purchase(card, amount))).code == "00"
    assert imported["added"] == 20_000
    assert (await switch.show("card", f"61{19_999:014}"))["cash"] == 1
