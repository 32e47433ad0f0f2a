"""Read stored live state without a run, and delete the state of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._state.accounts import ACCOUNT, AccountDocument, account_key
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
from backtest_kit._state.journal import gap, merge, missing
from backtest_kit._state.storage import SET_ASIDE
from backtest_kit._values.config import Config
from backtest_kit._values.errors import StateError


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A live run as it is stored.

    `at` is its newest step in milliseconds, `None` before the first. `damage` holds a message for
    each document of it that can't be read; `state` is `None` if its own can't be. `is_known`:
    `state` is what the run has stored last, not an older copy.
    """

    key: RunKey
    at: int | None = None
    state: LiveState | None = None
    transitions: tuple[Transition, ...] = ()
    damage: tuple[str, ...] = ()
    is_known: bool = True


class Stored(msgspec.Struct, frozen=True):
    """All that is stored: the runs by key, and a message for each thing that belongs to none."""

    runs: tuple[StoredRun, ...]
    problems: tuple[str, ...]


def stored_runs(adapter: Any) -> list[StoredRun]:
    """Return the runs of `read_stored`; raises as it does."""
    return list(read_stored(adapter).runs)


def read_stored(adapter: Any) -> Stored:
    """Return what is in a sync adapter, such as `FileAdapter`, by exchange, strategy and symbol.

    What is wrong with one run is in its `damage`, and keeps no other from being read.

    Raises:
        StateError: the state can't be read.
    """
    try:
        listed = {kind: list(adapter.list(kind)) for kind in ("run", f"run{SET_ASIDE}", "journal")}
        problems = [
            text
            for kind in ("run", "journal", "heartbeat")
            for _, text in getattr(adapter, "unreadable", lambda kind: ())(kind)
        ]
    except Exception as error:  # of an adapter of any kind
        raise StateError(f"the state can't be read: {error}") from error
    beats, damage = _read(adapter, "heartbeat", HEARTBEAT, Heartbeat)
    problems += [damage] if damage else []
    pages: dict[RunKey, list[str]] = {}
    for text in listed["journal"]:
        for key in _keys(text.rpartition("/")[0], problems):
            pages.setdefault(key, []).append(text)
    aside: dict[RunKey, list[str]] = {}
    for text in listed[f"run{SET_ASIDE}"]:
        where = place_of(adapter, f"run{SET_ASIDE}", text)
        for key in _keys(text.partition(" ")[0], problems):
            aside.setdefault(key, []).append(f"damaged and set aside as {where}")
    found = {key: StoredRun(key=key, damage=tuple(texts)) for key, texts in aside.items()}
    keys = [key for text in listed["run"] for key in _keys(text, problems)]
    gone = [key for key in pages if key not in keys and key not in aside]
    for key in (*keys, *gone):
        run = _run(adapter, key, pages.get(key, ()), beats)
        if run.state is not None or run.damage:
            found[key] = run
    return Stored(tuple(found[key] for key in sorted(found)), tuple(problems))


def _run(adapter: Any, key: RunKey, pages: Iterable[str], beats: Heartbeat | None) -> StoredRun:
    state, damage = _read(adapter, "run", str(key), LiveState)
    read = [_read(adapter, "journal", name, Page) for name in pages]
    problems = [damage, *(problem for _, problem in read)]
    noted = beats or Heartbeat({}, {}, {}, {})
    revisions = [page.revision for page, _ in read if page is not None]
    newest = max(0, noted.revision.get(str(key), 0), *revisions)
    known = 0 if state is None else state.revision
    is_older = newest > max(known, noted.told.get(str(key), 0))
    if not damage and is_older:
        what = "is gone" if state is None else "is an older copy"
        problems.append(f"{place_of(adapter, 'run', str(key))} {what}: a newer one was there")
    if state is None:
        return StoredRun(key=key, damage=tuple(filter(None, problems)))
    transitions = merge(state, [page for page, _ in read])
    lost = missing(state, transitions)
    if lost and not any(problems):
        problems.append(gap(key, lost))
    steps = (state.at, noted.last_step(state) or None)
    return StoredRun(
        key=key,
        at=max((at for at in steps if at is not None), default=None),
        state=state,
        transitions=tuple(transitions),
        damage=tuple(filter(None, problems)),
        is_known=not is_older,
    )


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
        record.add(entry.event)
    record.signal, record.missed = state.signal, state.missed
    return record


def forget(adapter: Any, run: StoredRun) -> None:
    """Delete a run with its transitions; nobody else may use the adapter meanwhile.

    Raises:
        StateError: its account can't be read.
    """
    key = str(run.key)
    adapter.acquire()
    try:
        _leave_account(adapter, run)  # first: one that has a place and no document is damaged
        adapter.delete("run", key)
        for name in adapter.list("journal"):
            if name.rpartition("/")[0] == key:
                adapter.delete("journal", name)
        for name in adapter.list(CURSOR):
            if name.startswith(f"{key}/"):
                adapter.delete(CURSOR, name)
        beats, _ = _read(adapter, "heartbeat", HEARTBEAT, Heartbeat)
        if beats is not None:
            for noted in (beats.at, beats.document_step, beats.revision, beats.told):
                noted.pop(key, None)
            adapter.write("heartbeat", HEARTBEAT, encode("heartbeat", HEARTBEAT, beats))
    finally:
        adapter.release()


def _leave_account(adapter: Any, run: StoredRun) -> None:
    """Take away the place of a run in its account."""
    part = None if run.state is None else run.state.account
    if part is None:
        return
    account = account_key(part.name)
    document, damage = _read(adapter, ACCOUNT, account, AccountDocument)
    if damage:
        raise StateError(damage)
    if document is not None and str(run.key) in document.places:
        places = {key: place for key, place in document.places.items() if key != str(run.key)}
        revision = document.revision + 1
        changed = msgspec.structs.replace(document, places=places, revision=revision)
        adapter.write(ACCOUNT, account, encode(ACCOUNT, account, changed))


def _keys(text: str, problems: list[str]) -> list[RunKey]:
    """Return the key of a run that a text is; note that it is none."""
    try:
        return [run_key(text)]
    except ValueError as error:
        problems.append(str(error))
        return []


def _read(adapter: Any, kind: str, key: str, type_: type[Any]) -> tuple[Any, str]:
    try:
        content = adapter.read(kind, key)
        return (None if content is None else decode(kind, key, bytes(content), type_)), ""
    except Exception as error:  # noqa: BLE001 - of an adapter of any kind; it is that document's
        return None, f"{place_of(adapter, kind, key)} can't be read: {error}"


def place_of(adapter: Any, kind: str, key: str) -> str:
    """Return a text that tells a person where a document is."""
    where = getattr(adapter, "where", None)
    return f"{kind} {key}" if where is None else str(where(kind, key))
