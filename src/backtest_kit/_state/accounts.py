"""What accounts of live runs begin with, as it is stored.

What the runs have added since is in their own documents (`account_part`), so that a trade and its
money are one write: an account has its balance and the sum of the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec

from backtest_kit._state.documents import Document
from backtest_kit._state.envelope import DamagedError
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.errors import CorruptStateError
from backtest_kit._values.time import Instant

#: The kind of these documents.
ACCOUNT: Final = "account"
_Amount = Annotated[float, msgspec.Meta(gt=0)]


class BalanceChange(Document, frozen=True):
    """What a person has added to an account (below 0: taken from it) at an instant (ms)."""

    when: Instant
    amount: float
    note: str


class AccountDocument(Document, frozen=True, kw_only=True):
    """What an account of live runs begins with, and since when (ms); every field is there.

    `closes` are its equities at the ends of days (UTC), by date.
    """

    name: str
    exchange_name: str
    currency: str
    balance: _Amount
    leverage: _Amount
    maintenance_percent: float
    since: Instant
    changes: tuple[BalanceChange, ...]
    closes: dict[str, float]

    def check(self, key: str) -> None:
        """Compare its name with its key."""
        if account_key(self.name) != key:
            raise DamagedError(f"it belongs to account {self.name!r}")

    @property
    def paid_in(self) -> float:
        """The balance that it began with, and what was added by hand since."""
        return self.balance + math.fsum(change.amount for change in self.changes)


def account_key(name: str) -> str:
    """Return the key of an account's document."""
    return quote(name, safe="")


class Accounts:
    """The documents of accounts in the state."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def read(self, name: str) -> AccountDocument | None:
        """Return what is stored of an account, `None` where nothing is.

        Raises:
            CorruptStateError: it is damaged, and was moved aside.
            StateError: it can't be read.
        """

        def explain(error: ValueError, place: str) -> str:
            return (
                f"account {name!r} is damaged ({error}) and was moved to {place}; put a good copy "
                f"back as {self.where(name)}"
            )

        key = account_key(name)
        return await self._store.read(ACCOUNT, key, AccountDocument, explain)

    async def write(self, document: AccountDocument) -> None:
        """Make an account's document durable; raises StateError where that fails."""
        await self._store.write(ACCOUNT, account_key(document.name), document)

    def where(self, name: str) -> str:
        """Return a text that tells a person where an account's document is."""
        return self._store.where(ACCOUNT, account_key(name))


def lost(name: str, where: str) -> CorruptStateError:
    """Return the error of an account of which runs know, and whose document is gone."""
    return CorruptStateError(
        f"runs of account {name!r} are stored, and {where} is gone: what it began with is not "
        "known. Put a copy of it back, or delete the documents of those runs"
    )


def same_values(document: AccountDocument, given: Mapping[str, Any]) -> str | None:
    """Return in what an account that is stored is not the one that is given; `None`: in nothing."""
    for name, value in given.items():
        if getattr(document, name) != value:
            return f"{name}={getattr(document, name)!r}, and not {value!r}"
    return None
