"""An account in simulations that pay, or refuse, each trade as it is found: in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._arrays import paying, purse
from backtest_kit._arrays.paid_account import PaidAccount
from backtest_kit._arrays.purse import Purse
from backtest_kit._rules.account import Rules, Terms
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.fills import Fills

#: Methods of sizing that take nothing but the numbers of the signal and the equity.
_WAYS: Final = {
    "fixed-cost": (purse.COST, "cost"),
    "equity-percentage": (purse.OF_EQUITY, "equity_percentage"),
    "fixed-percentage": (purse.AT_RISK, "risk_percentage"),
}
_REFUSALS: Final = {
    "liquidation": paying.REFUSED,
    "cash": paying.REFUSED_CASH,
    "size": paying.REFUSED_SIZE,
    "minimum": paying.REFUSED_MINIMUM,
}
_SKIPS: Final = {
    "liquidation": paying.SKIPPED_LIQUIDATION,
    "cash": paying.SKIPPED_CASH,
    "minimum": paying.SKIPPED_MINIMUM,
}


class Paying(NamedTuple):
    """What a run of an account trades by."""

    sizing: SizingSchema | None
    terms: Terms
    rules: Rules


def sizes_by_numbers(sizing: SizingSchema | None) -> bool:
    """Say whether a sizing asks neither candles, earlier trades nor a function."""
    return sizing is None or (sizing.method in _WAYS and sizing.callbacks is None)


def account_of(runs: Sequence[Paying], schema: AccountSchema) -> PaidAccount:
    """Return an account that simulations of its runs begin with."""
    return PaidAccount(
        Purse(
            float(schema.balance),
            math.nan if schema.default_percent is None else float(schema.default_percent),
            schema.on_cash_shortage == "refuse",
            np.array([run.terms for run in runs], dtype=np.float64),
            np.array([run.rules for run in runs], dtype=np.float64),
            np.array([_size(run.sizing) for run in runs], dtype=np.float64),
        )
    )


def _size(sizing: SizingSchema | None) -> tuple[float, ...]:
    """Return how a run sizes; see `Purse`."""
    if sizing is None:
        return purse.DEFAULT, *(math.nan,) * 4
    way, field = _WAYS[sizing.method]
    limits = (sizing.min_position_size, sizing.max_position_percentage, sizing.max_position_size)
    return way, *(math.nan if n is None else n for n in (getattr(sizing, field), *limits))


def fills_of(account: PaidAccount) -> Fills:
    """Return the fills of an account."""
    whole, real = (rows.T.copy() for rows in account.fills)
    return Fills(
        timestamp=whole[purse.WHEN],
        run=whole[purse.RUN],
        trade=whole[purse.TRADE],
        side=whole[purse.SIDE].astype(np.int8),
        quantity=real[purse.QUANTITY],
        basis=real[purse.BASIS],
        balance=real[purse.BALANCE],
        fee=real[purse.FEE],
        slippage=real[purse.SLIPPAGE],
        profit=real[purse.PROFIT],
        value=real[purse.VALUE],
        liquidated=whole[purse.LIQUIDATED] != 0,
    )


def counts_of(account: PaidAccount) -> AccountCounts:
    """Return what an account counted beside its fills."""
    counts = account.counts
    refusals, skips = (
        {reason: counts[place] for reason, place in places.items() if counts[place]}
        for places in (_REFUSALS, _SKIPS)
    )
    return AccountCounts(
        not_charged=account.not_charged,
        refusals=refusals,
        skips=skips,
        reductions=counts[paying.REDUCED],
    )
