"""The account of a lone run over several simulations: what goes in, and the fills that come out."""

from __future__ import annotations

import numpy as np

from backtest_kit._arrays import lone as at
from backtest_kit._arrays.job import column_of
from backtest_kit._arrays.lone import Lone
from backtest_kit._arrays.purse import Purse
from backtest_kit._arrays.signals import read_only
from backtest_kit._values.candles import Floats, Ints

_NOT_ASKED = read_only(np.full(1, np.nan))


class LoneAccount:
    """An account from its balance on, which one simulation after another goes on with."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._money = np.array([purse.balance, purse.balance, 0.0, 0.0, 0.0])
        self._counts = np.zeros(11, dtype=np.int64)
        self._counts[at.TAKEN_AT] = -1
        self._pieces = [(np.empty((0, 5), dtype=np.int64), np.empty((0, 7)))]

    def paying(self, cost: Floats | None, quantity: Floats | None, fills: int) -> Lone:
        """Return it for signals that ask for these sizes, with room for so many fills."""
        return Lone(
            self._purse,
            _NOT_ASKED if cost is None else column_of(cost),
            _NOT_ASKED if quantity is None else column_of(quantity),
            self._money,
            self._counts,
            np.empty((fills, 5), dtype=np.int64),
            np.empty((fills, 7)),
        )

    def take(self, lone: Lone, step: int) -> None:
        """Take out the fills that were written, at steps that last `step` ms."""
        count = int(self._counts[at.FILLS])
        whole = lone.whole[:count] * np.array([step, 1, 1, 1, 1])
        self._pieces.append((whole, lone.real[:count].copy()))
        self._counts[at.FILLS] = 0

    @property
    def fills(self) -> tuple[Ints, Floats]:
        """All fills, as rows; see `purse`."""
        whole, real = zip(*self._pieces, strict=True)
        return np.concatenate(whole), np.concatenate(real)

    @property
    def not_charged(self) -> float:
        """What losses beyond the collateral would have cost."""
        return float(self._money[at.NOT_CHARGED])

    @property
    def counts(self) -> list[int]:
        """What was counted; see `lone`."""
        return [*map(int, self._counts)]


def nobody() -> Lone:
    """Return the account of a run that has none."""
    none = np.empty((0, 5))
    purse = Purse(0.0, np.nan, False, none, none, none)
    return LoneAccount(purse).paying(None, None, 0)
