"""What one live run has done to its account, as the run's own document keeps it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from backtest_kit._values.account import Money
from backtest_kit._values.time import Instant

_Index = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class AccountPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one run has done to its account, in the account's currency.

    `order` is its place among the runs, in the order in which they first joined. `profit` is that
    of closed positions, after fees; `fees` are theirs; `money` is that of the open one, and `mark`
    the close that it was worth when this was written. `booked` numbers the writes that changed the
    account's money, of all runs: after this one its balance was `left`. `taken` is the equity of
    the instant `taken_at` (ms), by which sizes are measured. `refusals` and `skips` count by
    reason; `reductions` what was reduced, and `not_charged` is what was lost beyond collaterals.
    `revision` is the newest of the account's own document that it knows of.
    """

    name: str
    order: _Index
    profit: float
    fees: float
    trades: _Index
    money: Money | None
    mark: float | None
    booked: _Index
    left: float
    taken_at: Instant
    taken: float
    refusals: dict[str, _Index]
    skips: dict[str, _Index]
    reductions: _Index
    not_charged: float
    revision: _Index

    @property
    def gain(self) -> float:
        """What it has added to the account's balance."""
        return self.profit + (0.0 if self.money is None else self.money.profit)
