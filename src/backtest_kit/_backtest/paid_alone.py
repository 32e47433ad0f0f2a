"""The trades of a lone run on its account, which pays or refuses each as it is found."""

from __future__ import annotations

from typing import Final

from backtest_kit._arrays import lone
from backtest_kit._arrays.lone_account import LoneAccount
from backtest_kit._backtest.paid_tables import Paid, fills_of
from backtest_kit._statistics.equity import AccountCounts

_REFUSALS: Final = {
    "liquidation": lone.REFUSED,
    "cash": lone.REFUSED_CASH,
    "size": lone.REFUSED_SIZE,
    "minimum": lone.REFUSED_MINIMUM,
}
_SKIPS: Final = {
    "liquidation": lone.SKIPPED_LIQUIDATION,
    "cash": lone.SKIPPED_CASH,
    "minimum": lone.SKIPPED_MINIMUM,
}


def paid_alone(account: LoneAccount) -> Paid:
    """Return what an account did with the trades of its run."""
    counts = account.counts
    refusals, skips = (
        {reason: counts[place] for reason, place in places.items() if counts[place]}
        for places in (_REFUSALS, _SKIPS)
    )
    return Paid(
        fills_of(*account.fills),
        AccountCounts(
            not_charged=account.not_charged,
            refusals=refusals,
            skips=skips,
            reductions=counts[lone.REDUCED],
        ),
    )
