"""Read what is stored of accounts without a run, and change a balance by hand."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

import msgspec

from backtest_kit._live.stored import StoredRun, read_stored
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import ACCOUNT, AccountDocument, BalanceChange, account_key
from backtest_kit._state.documents import decode, encode
from backtest_kit._values.errors import ArgumentError, StateError, UnknownNameError


class StoredAccount(msgspec.Struct, frozen=True):
    """An account of live runs as it is stored, and its runs, in the order in which they joined."""

    document: AccountDocument
    runs: tuple[StoredRun, ...]

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


def stored_accounts(adapter: Any) -> list[StoredAccount]:
    """Return the accounts that are in a sync adapter, by name.

    Raises:
        StateError: the state can't be read, or an account's document is damaged.
    """
    return [stored_account(adapter, unquote(key)) for key in adapter.list(ACCOUNT)]


def stored_account(adapter: Any, name: str) -> StoredAccount:
    """Return an account that is in a sync adapter.

    Raises:
        UnknownNameError: it has no such account.
        StateError: the state can't be read, or the account's document is damaged.
    """
    document = _document(adapter, name)
    runs = [
        (run.state.account.order, run)
        for run in read_stored(adapter).runs
        if run.state is not None and run.state.account and run.state.account.name == name
    ]
    return StoredAccount(document, tuple(run for _, run in sorted(runs, key=lambda pair: pair[0])))


def add_to_account(adapter: Any, name: str, amount: float, note: str, now: int) -> None:
    """Add an amount to an account (below 0: take it out) at `now` (ms), while no process uses it.

    Raises:
        ArgumentError: the amount is 0 or not finite, or more would be taken than is free.
        UnknownNameError: there is no such account.
        StateOwnedError: live runs use the state.
        StateError: it can't be read or written.
    """
    if not math.isfinite(amount) or amount == 0:
        raise ArgumentError(f"{amount!r} must be an amount, above 0 to add, below to take out")
    acquire, release = (getattr(adapter, name, _nothing) for name in ("acquire", "release"))
    acquire()
    try:
        stored = stored_account(adapter, name)
        free = stored.balance - stored.collateral
        if amount < -free:
            raise ArgumentError(
                f"{-amount:.8g} {stored.document.currency} can't be taken out: {free:.8g} are free"
            )
        changes = (*stored.document.changes, BalanceChange(now, float(amount), note))
        changed = msgspec.structs.replace(stored.document, changes=changes)
        key = account_key(name)
        adapter.write(ACCOUNT, key, encode(ACCOUNT, key, changed))
    finally:
        release()


def _nothing() -> None:
    """Take or give back what needs neither."""


def _document(adapter: Any, name: str) -> AccountDocument:
    key = account_key(name)
    content = adapter.read(ACCOUNT, key)
    if content is None:
        known = ", ".join(unquote(key) for key in adapter.list(ACCOUNT)) or "none"
        raise UnknownNameError(f"no account {name!r} of live runs is stored (there are: {known})")
    try:
        return decode(ACCOUNT, key, bytes(content), AccountDocument)
    except ValueError as error:
        raise StateError(f"account {name!r} can't be read: {error}") from error
