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

from backtest_kit._state.documents import Count, Document, RunKey, run_key
from backtest_kit._state.envelope import DamagedError
from backtest_kit._state.storage import SET_ASIDE, DocumentStore
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

    `closes` are its equities at the ends of days (UTC), by date. `places` are those of its runs, in
    the order in which they joined, by the key of each: what a run holds whose own document is
    damaged or gone is not known, and is not nothing. `revision` counts how often this was written:
    a part that knows of a later one shows that this is an older copy.
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
    places: dict[str, Count]
    revision: Count

    def check(self, key: str) -> None:
        """Compare its name with its key."""
        if account_key(self.name) != key:
            raise DamagedError(f"it belongs to account {self.name!r}")
        for text in self.places:
            run_key(text)

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
            CorruptStateError: it is damaged, and was moved aside, now or before.
            StateError: it can't be read.
        """

        def explain(error: ValueError | None, place: str) -> str:
            why = "" if error is None else f" ({error})"
            return moved(name, why, place, self.where(name))

        key = account_key(name)
        document = await self._store.read(ACCOUNT, key, AccountDocument, explain)
        if document is None:
            for text in await self._store.keys(ACCOUNT + SET_ASIDE):
                if text.partition(" ")[0] == key:
                    place = self._store.where(ACCOUNT + SET_ASIDE, text)
                    raise CorruptStateError(explain(None, place))
        return document

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


def moved(name: str, why: str, place: str, where: str) -> str:
    """Return what to say of an account whose document is damaged and was moved aside."""
    damage = f"account {name!r} is damaged{why} and was moved to {place}"
    return f"{damage}; put a good copy back as {where}"


def no_part(key: RunKey) -> str:
    """Return what to say of a run of an account whose document is gone, or has nothing of it."""
    return f"what {key.strategy_name} on {key.symbol} ({key.exchange_name}) has is not stored"


def begun_anew(name: str, key: RunKey) -> str:
    """Return what to say of a run of an account whose document was let go of."""
    return (
        f"{key.strategy_name} on {key.symbol} begins with nothing: what it has gained in account "
        f"{name!r} counts no more. Where that was not 0, add it by hand (account {name} --add)"
    )


def older(name: str, where: str) -> str:
    """Return what to say of an account whose document is an older copy."""
    return (
        f"{where} is an older copy of account {name!r}: what was added to it or taken out since is "
        "not known"
    )


def remedy(name: str) -> str:
    """Return what to do where it is not known what money an account has."""
    return (
        "Nothing is entered until a good copy is back and the runs are started again, or until "
        f"`backtest-kit account {name} --accept` goes on with what is there"
    )


def same_values(known: object, given: Mapping[str, Any]) -> str | None:
    """Return in what an account that is known is not the one that is given; `None`: in nothing."""
    for name, value in given.items():
        if getattr(known, name) != value:
            return f"{name}={getattr(known, name)!r}, and not {value!r}"
    return None
