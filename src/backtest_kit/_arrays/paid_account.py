"""An account over several simulations: what goes in, and the fills that come out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_kit._arrays import paying as at
from backtest_kit._arrays.job import column_of
from backtest_kit._arrays.paying import Account
from backtest_kit._arrays.purse import Purse
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._rules.account import in_turn
from backtest_kit._values.candles import Floats, Ints

_NOT_ASKED = read_only(np.full(1, np.nan))


class PaidAccount:
    """An account from its balance on, which one simulation after another goes on with."""

    def __init__(self, purse: Purse) -> None:
        runs = len(purse.terms)
        self._purse = purse
        self._money = np.full(2, purse.balance)
        self._held, self._order = np.zeros((runs, 4)), np.zeros(runs + 1, dtype=np.int64)
        self._number, self._counts = np.zeros(runs, dtype=np.int64), np.zeros(12, dtype=np.int64)
        self._counts[at.TAKEN_AT] = -1
        self._pieces = [(np.empty((0, 5), dtype=np.int64), np.empty((0, 7)))]

    def paying(self, signals: Sequence[Signals], fills: int) -> Account:
        """Return it for the signals of its runs, with room for so many fills."""
        columns = [
            [_NOT_ASKED if c is None else column_of(c) for c in asked]
            for asked in ([s.cost for s in signals], [s.quantity for s in signals])
        ]
        cost, quantity = (
            read_only(np.concatenate(each)) if len(each) > 1 else each[0] for each in columns
        )
        return Account(
            self._purse,
            cost,
            quantity,
            np.array([np.cumsum([0, *map(len, each)]) for each in columns]),
            self._money,
            self._held,
            self._order,
            self._number,
            self._counts,
            np.empty((fills, 5), dtype=np.int64),
            np.empty((fills, 7)),
        )

    def take(self, account: Account, step: int) -> None:
        """Take out the fills that were written, at steps that last `step` ms."""
        count = int(self._counts[at.FILLS])
        whole = account.whole[:count] * np.array([step, 1, 1, 1, 1])
        self._pieces.append((whole, account.real[:count].copy()))
        self._counts[at.FILLS] = 0

    @property
    def fills(self) -> tuple[Ints, Floats]:
        """All fills, as rows; see `purse`."""
        whole, real = zip(*self._pieces, strict=True)
        return np.concatenate(whole), np.concatenate(real)

    @property
    def not_charged(self) -> float:
        """What losses beyond the collateral would have cost."""
        return in_turn(self._held[:, at.NOT_CHARGED].tolist())

    @property
    def counts(self) -> list[int]:
        """What was counted; see `paying`."""
        return [*map(int, self._counts)]


def nobody() -> Account:
    """Return the account of a run that has none."""
    none = np.empty((0, 5))
    return PaidAccount(Purse(0.0, np.nan, False, none, none, none)).paying([_SILENT], 0)


_SILENT = Signals(np.zeros(1), None, None, None)
