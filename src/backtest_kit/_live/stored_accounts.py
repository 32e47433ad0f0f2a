"""Read what is stored of accounts without a run, and change a balance by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from backtest_kit._live.stored import StoredRun, place_of, read_stored
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import (
    ACCOUNT,
    AccountDocument,
    BalanceChange,
    account_key,
    lost,
    moved,
    no_part,
    older,
    remedy,
)
from backtest_kit._state.documents import RunKey, decode, encode, run_key
from backtest_kit._state.storage import SET_ASIDE
from backtest_kit._values.errors import ArgumentError, StateError, UnknownNameError

#: Of a balance: what is left of it, or short of it, by rounding.
_DUST: Final = 1e-9


class StoredAccount(msgspec.Struct, frozen=True):
    """An account of live runs as it is stored, and its runs, in the order in which they joined.

    `problems` say why it is not known what money it has: it enters nothing until they are solved.
    `is_older`: its document is an older copy.
    """

    document: AccountDocument
    runs: tuple[StoredRun, ...]
    problems: tuple[str, ...] = ()
    is_older: bool = False

    @property
    def parts(self) -> list[AccountPart]:
        """What each run has done to it."""
        states = [run.state for run in self.runs if run.state is not None]
        return [state.account for state in states if state.account is not None]

    @property
    def balance(self) -> float:
        """What it began with, what was added by hand, and what its runs have gained."""
        return self.document.paid_in + math.fsum(part.gain for part in self.parts)

    @property
    def collateral(self) -> float:
        """What open positions bind."""
        positions = [run.state.position for run in self.runs if run.state is not None]
        held = [position.account for position in positions if position is not None]
        return math.fsum(x["basis"] / self.document.leverage for x in held if x is not None)

    @property
    def free(self) -> float:
        """What of the balance no position binds."""
        free = self.balance - self.collateral
        return 0.0 if abs(free) < _DUST * self.document.balance else free


def account_names(adapter: Any) -> list[str]:
    """Return the names of the accounts that are in a sync adapter, sorted.

    Also those whose document was moved aside, or is gone and known of by runs.

    Raises:
        StateError: the state can't be read.
    """
    try:
        keys = [*adapter.list(ACCOUNT), *(key for key, _ in _aside(adapter))]
    except Exception as error:  # of an adapter of any kind
        raise StateError(f"the state can't be read: {error}") from error
    states = [run.state for run in read_stored(adapter).runs]
    parts = [state.account for state in states if state is not None]
    known = {part.name for part in parts if part is not None}
    return sorted({unquote(key) for key in keys} | known)


def _aside(adapter: Any) -> list[tuple[str, str]]:
    """Return the keys of documents of accounts that were moved aside, and what each is now."""
    kind = ACCOUNT + SET_ASIDE
    return [(text.partition(" ")[0], place_of(adapter, kind, text)) for text in adapter.list(kind)]


def stored_account(adapter: Any, name: str) -> StoredAccount:
    """Return an account that is in a sync adapter, which runs may use meanwhile.

    Raises:
        UnknownNameError: it has no such account.
        StateError: the state can't be read, or the account's document is damaged or gone.
    """
    # what was a place before was a document before; what a part knows of is there after
    before, runs, document = (
        _document(adapter, name),
        {run.key: run for run in read_stored(adapter).runs},
        _document(adapter, name),
    )
    places = {run_key(text): place for text, place in document.places.items()}
    mine = [
        (places.get(key, run.state.account.order), run)
        for key, run in runs.items()
        if run.state is not None and run.state.account and run.state.account.name == name
    ]
    missing = {run_key(text): runs.get(run_key(text)) for text in before.places}
    problems = [text for key, run in missing.items() if key in places for text in _why(key, run)]
    stored = StoredAccount(document, tuple(run for _, run in sorted(mine, key=lambda x: x[0])))
    is_older = _newest(stored) > document.revision
    if is_older:
        problems.append(older(name, place_of(adapter, ACCOUNT, account_key(name))))
    if problems:
        problems.append(remedy(name))
    return msgspec.structs.replace(stored, problems=tuple(problems), is_older=is_older)


def _why(key: RunKey, run: StoredRun | None) -> list[str]:
    """Return why it is not known what a run of an account has; nothing where it is."""
    if run is not None and run.state is not None and run.is_known and run.state.account:
        return []
    who = f"{key.strategy_name} on {key.symbol} ({key.exchange_name})"
    return [f"{who}: {text}" for text in ([] if run is None else run.damage)] or [no_part(key)]


def _newest(stored: StoredAccount) -> int:
    """Return the newest revision of an account's document that its runs know of."""
    return max((part.revision for part in stored.parts), default=0)


def add_to_account(adapter: Any, name: str, amount: float, note: str, now: int) -> None:
    """Add an amount to an account (below 0: take it out) at `now` (ms), while no process uses it.

    Raises:
        ArgumentError: the amount is 0 or not finite, or more would be taken than is free.
        UnknownNameError: there is no such account.
        StateOwnedError: live runs use the state.
        StateError: it can't be read or written, or it is not known what the account has: then
            nothing is taken out, and nothing is added to an older copy.
    """
    if not math.isfinite(amount) or amount == 0:
        raise ArgumentError(f"{amount!r} must be an amount, above 0 to add, below to take out")

    def added(stored: StoredAccount) -> AccountDocument:
        if stored.problems and (amount < 0 or stored.is_older):
            raise StateError("; ".join(stored.problems))
        if -amount - stored.free > _DUST * stored.document.balance:
            raise ArgumentError(
                f"{-amount:.8g} {stored.document.currency} can't be taken out: "
                f"{stored.free:.8g} are free"
            )
        changes = (*stored.document.changes, BalanceChange(now, float(amount), note))
        return msgspec.structs.replace(stored.document, changes=changes)

    _change(adapter, name, added)


def accept_account(adapter: Any, name: str) -> None:
    """Let an account go on with what is there, while no process uses it.

    Runs whose documents are damaged or gone belong to it no more, and an older copy of its own is
    taken. What they had gained counts no more, nor what they hold.

    Raises:
        UnknownNameError: there is no such account.
        StateOwnedError: live runs use the state.
        StateError: it can't be read or written.
    """

    def accepted(stored: StoredAccount) -> AccountDocument:
        known = {str(run.key) for run in stored.runs if run.is_known}
        places = {key: place for key, place in stored.document.places.items() if key in known}
        revision = max(stored.document.revision, _newest(stored))
        return msgspec.structs.replace(stored.document, places=places, revision=revision)

    _change(adapter, name, accepted)


def _change(adapter: Any, name: str, changed: Callable[[StoredAccount], AccountDocument]) -> None:
    key = account_key(name)
    with _owned(adapter):
        document = changed(stored_account(adapter, name))
        document = msgspec.structs.replace(document, revision=document.revision + 1)
        adapter.write(ACCOUNT, key, encode(ACCOUNT, key, document))


@contextmanager
def _owned(adapter: Any) -> Iterator[None]:
    acquire, release = (getattr(adapter, name, _nothing) for name in ("acquire", "release"))
    acquire()
    try:
        yield
    finally:
        release()


def _nothing() -> None:
    """Take or give back what needs neither."""


def _document(adapter: Any, name: str) -> AccountDocument:
    key = account_key(name)
    content = adapter.read(ACCOUNT, key)
    if content is None:
        names = account_names(adapter)
        if name in names:  # it was begun just now
            content = adapter.read(ACCOUNT, key)
        if content is None:
            where = place_of(adapter, ACCOUNT, key)
            for _, place in [pair for pair in _aside(adapter) if pair[0] == key]:
                raise StateError(moved(name, "", place, where))
            if name in names:
                raise lost(name, where)
            known = ", ".join(names) or "none"
            raise UnknownNameError(
                f"no account {name!r} of live runs is stored (there are: {known})"
            )
    try:
        return decode(ACCOUNT, key, bytes(content), AccountDocument)
    except ValueError as error:
        raise StateError(f"account {name!r} can't be read: {error}") from error
