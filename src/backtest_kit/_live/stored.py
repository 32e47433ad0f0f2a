"""Read stored live state without a run, and delete the state of a run."""

from __future__ import annotations

from typing import Any

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._state.cursors import CURSOR
from backtest_kit._state.documents import (
    Heartbeat,
    LiveState,
    Page,
    RunKey,
    Transition,
    decode,
    encode,
    run_key,
)
from backtest_kit._state.heartbeats import HEARTBEAT
from backtest_kit._state.journal import merge, page_keys
from backtest_kit._state.storage import SET_ASIDE
from backtest_kit._values.config import Config
from backtest_kit._values.errors import StateError


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A live run as it is stored.

    `at` is its newest step in milliseconds, `None` before the first. `damage` holds a message for
    each document of it that can't be read; `state` is `None` if its own can't be.
    """

    key: RunKey
    at: int | None = None
    state: LiveState | None = None
    transitions: tuple[Transition, ...] = ()
    damage: tuple[str, ...] = ()


def stored_runs(adapter: Any) -> list[StoredRun]:
    """Return all runs in a sync adapter, such as `FileAdapter`, by exchange, strategy and symbol.

    Raises:
        OSError: the state can't be read.
    """
    beats, damage = _read(adapter, "heartbeat", HEARTBEAT, Heartbeat)
    found: dict[RunKey, StoredRun] = {}
    for text in adapter.list(f"run{SET_ASIDE}"):
        key = run_key(text.partition(" ")[0])
        where = _where(adapter, f"run{SET_ASIDE}", text)
        found[key] = StoredRun(key=key, damage=(f"damaged and set aside as {where}",))
    for text in adapter.list("run"):
        key = run_key(text)
        state, problem = _read(adapter, "run", text, LiveState)
        if state is None:
            found[key] = StoredRun(key=key, damage=tuple(x for x in (problem,) if x))
            continue
        transitions, problems = _history(adapter, state)
        newest = (state.at, (beats.last_step(state) if beats else 0) or None)
        found[key] = StoredRun(
            key=key,
            at=max((at for at in newest if at is not None), default=None),
            state=state,
            transitions=tuple(transitions),
            damage=tuple(x for x in (damage, *problems) if x),
        )
    return [found[key] for key in sorted(found)]


def stored_record(run: StoredRun, config: Config) -> RunRecord:
    """Return the record that reports are made of, with the costs that the run was made with.

    Raises:
        StateError: the run's document is damaged.
    """
    state = run.state
    if state is None:
        raise StateError(f"{run.key}: {'; '.join(run.damage)}")
    costs = {
        name: value
        for name in ("percent_fee", "percent_slippage")
        if (value := getattr(state, name)) is not None
    }
    record = RunRecord(
        symbol=state.symbol,
        strategy_name=state.strategy_name,
        exchange_name=state.exchange_name,
        frame_name=None,
        mode="live",
        config=msgspec.structs.replace(config, **costs),
        since=state.began_at or 0,
        until=run.at or 0,
    )
    for entry in run.transitions:
        record.add(entry.tick or entry.milestone)
    record.signal, record.missed = state.signal, state.missed
    return record


def forget(adapter: Any, run: StoredRun) -> None:
    """Delete a run with its transitions; nobody else may use the adapter meanwhile."""
    adapter.acquire()
    try:
        adapter.delete("run", str(run.key))
        for key in page_keys(run.state) if run.state else ():
            adapter.delete("journal", key)
        for key in adapter.list(CURSOR):
            if key.startswith(f"{run.key}/"):
                adapter.delete(CURSOR, key)
        beats, _ = _read(adapter, "heartbeat", HEARTBEAT, Heartbeat)
        if beats is not None and beats.at.pop(str(run.key), None) is not None:
            adapter.write("heartbeat", HEARTBEAT, encode(beats))
    finally:
        adapter.release()


def _history(adapter: Any, state: LiveState) -> tuple[list[Transition], list[str]]:
    read = [_read(adapter, "journal", key, Page) for key in page_keys(state)]
    return merge(state, [page for page, _ in read]), [problem for _, problem in read if problem]


def _read(adapter: Any, kind: str, key: str, type_: type[Any]) -> tuple[Any, str]:
    content = adapter.read(kind, key)
    if content is None:
        return None, ""
    try:
        return decode(kind, content, type_), ""
    except (ValueError, StateError) as error:
        return None, f"{_where(adapter, kind, key)} can't be read: {error}"


def _where(adapter: Any, kind: str, key: str) -> str:
    return str(adapter.where(kind, key))
