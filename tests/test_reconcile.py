import re
from pathlib import Path

import msgspec
import pytest

from switch.reconcile import ReconcileFailed, Reconciliation, reconcile_async
from switch.settlement import Settlement
from tests import journal_double as double
from tests.conftest import execute, run_asyncio
from tests.journal_double import Replica

SETTLED = 1230


@pytest.fixture
def journal(tmp_path: Path, database_url: str) -> Path:
    """A journal that has gone on past what is settled."""
    folder = Replica.create(tmp_path / "journal")
    Replica.make_durable(folder, SETTLED + 77)

    async def settle() -> None:
        replica = Replica(folder)
        async with Settlement.connect(database_url) as database:
            await database.migrate()
            await database.follow(replica.identity)
            while chunk := replica.collect(SETTLED - replica.position):
                await database.commit(replica.identity, chunk)

    run_asyncio(settle())
    return folder


def reconcile_after(address: str, journal: Path, *statements: str) -> Reconciliation:
    async def run() -> Reconciliation:
        await execute(address, *statements)
        return await reconcile_async(lambda _: Replica(journal), address)

    return run_asyncio(run())


def test_what_was_settled_agrees_to_the_fen(database_url: str, journal: Path) -> None:
    found = reconcile_after(database_url, journal)
    assert (found.ok, found.differences, found.difference_count) == (True, [], 0)
    assert (found.journal, found.position) == ((journal / "identity").read_text(), SETTLED)
    postings = [posting for posting in map(double.posting, range(1, SETTLED + 1)) if posting]
    assert (found.transactions, found.postings) == (SETTLED - double.HOLDERS, len(postings))
    assert found.turnover == sum(amount for _, _, amount in postings)
    assert (found.ledger_sum, found.settlement_sum) == (0, 0)
    assert found.accounts == 1 + double.MERCHANTS + 2 * double.HOLDERS
    assert msgspec.json.decode(msgspec.json.encode(found), type=Reconciliation) == found


@pytest.mark.parametrize(
    ("statement", "sentences"),
    [
        (
            "UPDATE account SET balance = balance + 1 WHERE account = 3",
            [
                r"Account 3 \(merchant M2\) has the balance \d+ fen in the ledger and \d+ fen in PostgreSQL\.",
                r"Account 3 \(merchant M2\) has the balance \d+ fen in PostgreSQL, but its postings make \d+\.",
                r"All accounts of the settlement database together make 1 fen, not zero\.",
            ],
        ),
        (
            "UPDATE account SET holds = 5 WHERE account = 6",
            [
                r"Account 6 \(cash H0\) has 0 fen on hold in the ledger and 5 fen in PostgreSQL\.",
                r"Account 6 \(cash H0\) has 5 fen on hold in PostgreSQL, but its open holds make 0\.",
            ],
        ),
        (
            "INSERT INTO hold VALUES (7, now(), 'T0000001', 'M0', '620000', 'H0', 5)",
            [r"Account 6 \(cash H0\) has 0 fen on hold in PostgreSQL, but its open holds make 5\."],
        ),
        (
            "UPDATE account SET owner = 'H9' WHERE account = 6",
            [r"Account 6 \(cash H0\) belongs to cash H9 in PostgreSQL\."],
        ),
        (
            "UPDATE posting SET amount = amount + 1 WHERE position = 51",
            [
                r"Account 2 \(merchant M1\) has the balance (\d+) fen in PostgreSQL, but its postings make \d+\.",
                r"Account 8 \(cash H1\) has the balance (\d+) fen in PostgreSQL, but its postings make \d+\.",
            ],
        ),
        (
            "DELETE FROM posting WHERE position = 51",
            [r"Account 2 \(merchant M1\) has the balance", r"Account 8 \(cash H1\) has the balance"],
        ),
        (
            "DELETE FROM account WHERE account = 8",
            [
                r"Account 8 \(cash H1\) holds \d+ fen in the ledger and is missing in PostgreSQL\.",
                r"Account 8 has postings of \d+ fen in PostgreSQL but no balance there\.",
                r"All accounts of the settlement database together make -\d+ fen, not zero\.",
            ],
        ),
        (
            "INSERT INTO account VALUES (999, 'cash', 'H999', 0, 0)",
            [r"Account 999 \(cash H999\) holds 0 fen in PostgreSQL and is unknown to the ledger\."],
        ),
    ],
)
def test_every_difference_is_a_sentence(database_url: str, journal: Path, statement: str, sentences: list[str]) -> None:
    found = reconcile_after(database_url, journal, statement)
    assert not found.ok
    assert found.difference_count == len(sentences), found.differences
    for difference, sentence in zip(found.differences, sentences, strict=True):
        assert re.match(sentence, difference), difference


def test_many_differences_are_counted_and_the_first_are_told(database_url: str, journal: Path) -> None:
    found = reconcile_after(database_url, journal, "UPDATE account SET balance = 1 WHERE kind <> 'house'")
    assert (found.ok, len(found.differences)) == (False, 20)
    # Each in the ledger and in the postings, and the sum.
    assert found.difference_count == 2 * (double.MERCHANTS + double.HOLDERS) + 1


def test_what_cannot_be_compared_is_refused(database_url: str, journal: Path, tmp_path: Path) -> None:
    other = Replica.create(tmp_path / "other", "ff" * 16)
    with pytest.raises(ReconcileFailed, match=f"follows the journal 0011.*, but this folder holds {'ff' * 16}"):
        reconcile_after(database_url, other)
    Replica.make_durable(journal, SETTLED - 1)
    with pytest.raises(ReconcileFailed, match="at record 1230, but this journal ends at 1229"):
        reconcile_after(database_url, journal)


def test_a_database_that_is_away_or_empty_is_refused(database_url: str, tmp_path: Path) -> None:
    folder = Replica.create(tmp_path / "journal")
    with pytest.raises(ReconcileFailed, match=r"^PostgreSQL: .*\.$"):
        run_asyncio(reconcile_async(lambda _: Replica(folder), "postgresql://switch@127.0.0.1:1/switch?sslmode=disable"))
    with pytest.raises(ReconcileFailed, match="follows no journal yet"):
        reconcile_after(database_url, folder)
