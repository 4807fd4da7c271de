"""A clock that is wrong: what a running switch does not follow, and what a start must have confirmed.

The process under test gets its wall clock from a few lines of C in front of the system's, which add what stands in a file.
"""

from collections.abc import Callable
from functools import partial
from operator import eq

from tests.clock import Clock
from tests.switch_process import MERCHANTS, Metrics, Switch, in_thread, today, until


def of_today(make_switch: Callable[..., Switch]) -> Switch:
    """A switch whose business date is today's, stopped."""
    switch = make_switch()
    (switch.folder / "merchants.csv").write_text(MERCHANTS, encoding="utf-8")
    imported = switch.command("import", "--config", switch.file, switch.folder / "merchants.csv")
    assert imported.returncode == 0, imported.stderr
    return switch


def refusal(switch: Switch, *arguments: str) -> str:
    completed = switch.command("serve", "--config", switch.file, *arguments)
    assert (completed.returncode, completed.stdout) == (1, ""), completed
    return completed.stderr


async def business_date(switch: Switch) -> str:
    found: str = (await switch.http("GET", "/v1/statistics")).json()["business_date"]
    return found


async def test_a_running_switch_does_not_follow_a_clock_that_is_far_ahead(clock: Clock, make_switch: Callable[..., Switch]) -> None:
    served = of_today(make_switch)
    await in_thread(served.start)
    device, card = await served.device(), await served.card(cash=1000)

    async def ahead() -> int:
        metrics: Metrics = await served.metrics()
        return metrics.value("switch_clock_ahead_days")

    async with served.connect() as connection:
        await device.sign_on(connection)
        purchase = device.purchase(card, 200)
        first = await device.ask(connection, purchase)
        assert (first.code, await ahead()) == ("00", 0)
        for days in (365, 4):
            clock.set(days)
            await until(ahead, partial(eq, days))
            assert await business_date(served) == today().isoformat()
            again = await device.ask(connection, purchase)
            assert (again.content, await served.purses(card)) == (first.content, (800, 0))
        clock.set(0)
        await until(ahead, partial(eq, 0))
        clock.set(3)
        await until(partial(business_date, served), partial(eq, today(3).isoformat()))
        again = await device.ask(connection, purchase)
        assert (again.content, await ahead(), await served.purses(card)) == (first.content, 0, (800, 0))


async def test_a_start_after_a_long_closure_must_be_confirmed(clock: Clock, make_switch: Callable[..., Switch]) -> None:
    served = of_today(make_switch)
    clock.set(101)
    sentence = await in_thread(partial(refusal, served))
    assert f"by this machine's clock the campus's date is {today(101)}, 101 days after the business date {today()}" in sentence
    assert f"switch serve --accept-date {today(101)}" in sentence
    for date, reason in ((today(100), f"--accept-date names {today(100)}, but"), ("today", "is not a date; write YYYY-MM-DD")):
        assert reason in await in_thread(partial(refusal, served, "--accept-date", str(date)))
    await in_thread(partial(served.start, arguments=("--accept-date", str(today(101)))))
    assert await business_date(served) == today(101).isoformat()
    await in_thread(served.stop)
    await in_thread(served.start)
    # A closure of a hundred days more needs no word.
    await in_thread(served.stop)
    clock.set(201)
    await in_thread(served.start)
    assert await business_date(served) == today(201).isoformat()
