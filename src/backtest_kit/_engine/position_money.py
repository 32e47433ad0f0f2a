"""The money of one run's position: its fills, taken into the books of the account."""

from __future__ import annotations

import msgspec

from backtest_kit._engine.account import SharedAccount
from backtest_kit._rules.account import Terms, slipped
from backtest_kit._values.account import Money


class PositionMoney:
    """The fills of the newest position of run number `run`; `so_far` is its money after each."""

    def __init__(self, account: SharedAccount, run: int, terms: Terms) -> None:
        self._account = account
        self._run = run
        self._terms = terms
        self._trade = self._side = 0
        self._reduced = False
        self.so_far: list[Money] = []

    def begin(self, side: int, *, reduced: bool) -> None:
        """Begin a position."""
        self._trade, self._side, self._reduced = self._account.trades, side, reduced
        self._account.trades += 1
        self.so_far = []

    def go_on(self, side: int, so_far: list[Money]) -> None:
        """Go on with a position of which this is known."""
        self._side, self.so_far = side, so_far

    def enter(self, amount: float, price: float, when: int) -> None:
        """Enter, for the first time or once more."""
        account, side, terms = self._account, self._side, self._terms
        cost = account.books.enter(self._run, side, amount, price, terms)
        fee, paid = terms.fee * cost, slipped(price, side, terms.slippage)
        slippage = amount * abs(paid - price)
        key = when, self._run, self._trade, side
        if account.fills is not None:
            account.fills.add(*key, amount, cost, -fee, fee, slippage, 0.0, cost, liquidated=False)
        if not self.so_far:
            first = Money(
                quantity=amount,
                cost=cost,
                first_cost=cost,
                fees=fee,
                slippage=slippage,
                profit=-fee,
                profit_percent=-fee / cost * 100,
                equity_before=account.taken,
                reduced=self._reduced,
            )
            self.so_far.append(first)
            return
        before = self.so_far[-1]
        profit = before.profit - fee
        self.so_far.append(
            msgspec.structs.replace(
                before,
                quantity=before.quantity + amount,
                cost=before.cost + cost,
                fees=before.fees + fee,
                slippage=before.slippage + slippage,
                profit=profit,
                profit_percent=profit / (before.cost + cost) * 100,
            )
        )

    def leave(self, amount: float | None, price: float, when: int) -> None:
        """Close an amount, or all that is held (`None`)."""
        account, before = self._account, self.so_far[-1]
        if amount is None:
            amount = account.books.held[self._run].quantity
        done = account.books.leave(self._run, amount, price, self._terms)
        key = when, self._run, self._trade, self._side
        if account.fills is not None:
            account.fills.add(
                *(*key, -amount, -done.basis, done.balance, done.fee),
                *(done.slippage, done.profit, done.value),
                liquidated=done.liquidated,
            )
        tally = account.tallies[self._run]
        lost = tally.not_charged + done.not_charged
        account.tallies[self._run] = msgspec.structs.replace(tally, not_charged=lost)
        profit = before.profit + done.balance
        self.so_far.append(
            msgspec.structs.replace(
                before,
                fees=before.fees + done.fee,
                slippage=before.slippage + done.slippage,
                profit=profit,
                profit_percent=profit / before.cost * 100,
                liquidated=before.liquidated or done.liquidated,
                not_charged=before.not_charged + done.not_charged,
            )
        )
