"""A target follows its table: adds before deletes, failures again with backoff, each row with its status."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palomar import reconciler
from palomar.errors import TransientError
from palomar.reconciler import Reconciler, keep_trying
from palomar.table import RowState, Table
from palomar.tasks import spawn
from tests.kit.wait import eventually_async


class Kernel:
    """A target that refuses some keys."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.holds: dict[str, int] = {}
        self.done: list[str] = []

    def update(self, key: str, value: int) -> None:
        self._check(key)
        self.holds[key] = value
        self.done.append(f"+{key}")

    def delete(self, key: str) -> None:
        self._check(key)
        self.holds.pop(key, None)
        self.done.append(f"-{key}")

    def _check(self, key: str) -> None:
        if key in self.refused:
            raise TransientError(f"{key} is busy")


def states(table: Table[str, int]) -> dict[str, tuple[RowState, int, str]]:
    return {row.key: (row.state, row.attempts, row.error) for row in table.rows()}


def test_adds_come_before_deletes_and_a_deleted_row_leaves_the_table() -> None:
    table, kernel = Table[str, int]("test"), Kernel()
    maker = Reconciler(table, kernel)
    table.put("old", 1)
    assert maker.reconcile_once() == 0
    table.delete("old")
    table.put("new", 2)
    assert maker.reconcile_once() == 0
    assert kernel.done == ["+old", "+new", "-old"]
    assert states(table) == {"new": (RowState.DONE, 0, "")}
    assert maker.reconcile_once() == 0
    assert len(kernel.done) == 3


def test_a_row_that_fails_says_why_and_how_often_and_the_others_are_done() -> None:
    table, kernel = Table[str, int]("test"), Kernel("bad")
    maker = Reconciler(table, kernel)
    table.put("bad", 1)
    table.put("good", 2)
    assert [maker.reconcile_once(), maker.reconcile_once()] == [1, 1]
    assert states(table) == {"bad": (RowState.ERROR, 2, "bad is busy"), "good": (RowState.DONE, 0, "")}
    assert kernel.done == ["+good"]
    kernel.refused.clear()
    assert maker.reconcile_once() == 0
    assert kernel.holds == {"bad": 1, "good": 2}
    assert states(table)["bad"] == (RowState.DONE, 0, "")


def test_a_wish_that_changed_meanwhile_stays_pending() -> None:
    """What was written is not what is wished any more."""
    table = Table[str, int]("test")
    table.put("key", 1)
    [row] = table.pending()
    table.put("key", 2)
    table.mark_done(row)
    table.mark_error(row, "too late")
    assert states(table) == {"key": (RowState.PENDING, 0, "")}


def test_a_wish_that_is_there_already_is_none() -> None:
    changes: list[int] = []
    table = Table[str, int]("test")
    table.watch(lambda: changes.append(table.revision))
    assert [table.put("key", 1), table.put("key", 1), table.put("key", 2)] == [True, False, True]
    assert [table.get("key"), table.get("other")] == [2, None]
    assert [table.delete("key"), table.delete("key"), table.delete("other")] == [True, False, False]
    assert table.get("key") is None
    assert table.put("key", 2)
    assert changes == [1, 2, 3, 4]


wishes = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2]), st.booleans()), max_size=30
)


@given(wishes)
def test_in_the_end_the_target_is_the_table(told: list[tuple[str, int | None, bool]]) -> None:
    """Whatever is wished, withdrawn and refused in between."""
    table, kernel = Table[str, int]("test"), Kernel("a")
    maker = Reconciler(table, kernel)
    wished: dict[str, int] = {}
    for key, value, now in told:
        if value is None:
            table.delete(key)
            wished.pop(key, None)
        else:
            table.put(key, value)
            wished[key] = value
        if now:
            maker.reconcile_once()
    kernel.refused.clear()
    assert maker.reconcile_once() == 0
    assert kernel.holds == wished
    assert {row.key for row in table.rows()} == wished.keys()


async def test_it_wakes_for_each_wish_and_tries_again_until_it_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler, "MIN_RETRY_S", 0.001)
    table, kernel = Table[str, int]("test"), Kernel("bad")
    task = spawn(Reconciler(table, kernel).run(), "test")
    try:
        table.put("good", 1)
        await eventually_async(lambda: kernel.holds == {"good": 1})
        table.put("bad", 2)
        await eventually_async(lambda: states(table)["bad"][1] >= 3)
        kernel.refused.clear()
        await eventually_async(lambda: kernel.holds == {"good": 1, "bad": 2})
    finally:
        task.cancel()


async def test_the_waits_grow_while_it_fails_and_begin_anew_after(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    wake = asyncio.Event()
    results = iter([1, 1, 1, 0, 2, 0])

    async def wait_for(waiting: object, timeout_s: float | None) -> None:
        waiting.close()  # type: ignore[attr-defined]  # a coroutine that nobody awaits
        waits.append(timeout_s)
        if timeout_s is not None:
            raise TimeoutError

    async def carry_out() -> int:
        try:
            return next(results)
        except StopIteration:
            raise asyncio.CancelledError from None

    monkeypatch.setattr(reconciler, "MAX_RETRY_S", 0.3)
    monkeypatch.setattr(reconciler, "asyncio", SimpleNamespace(wait_for=wait_for))
    with pytest.raises(asyncio.CancelledError):
        await keep_trying(carry_out, wake)
    assert waits == [0.1, 0.2, 0.3, None, 0.1, None]
