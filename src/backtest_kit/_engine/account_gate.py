"""What one run has to do with its account."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from backtest_kit._engine.account import SharedAccount
from backtest_kit._engine.account_size import AccountRun, wanted_by
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.position_money import PositionMoney
from backtest_kit._engine.turns import HOLDS
from backtest_kit._rules import holding as at
from backtest_kit._rules.account import (
    HAIR,
    Rules,
    Terms,
    is_beyond,
    liquidation_price,
    needed,
    slipped,
)
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.managed import Holding, Opening
from backtest_kit._rules.sizing import Entry, default_cost, fit, rules_of
from backtest_kit._values.account import Market, Money
from backtest_kit._values.account_schemas import SizingSchema
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.results import Refusal, TickClosed
from backtest_kit._values.signal import SignalRow

#: What a state of `holding` counts, and the reason that it stands for.
_SKIPS: Final[tuple[tuple[int, Refusal], ...]] = (
    (at.BEYOND_LIQUIDATION, "liquidation"),
    (at.SHORT_OF_CASH, "cash"),
    (at.TOO_SMALL, "minimum"),
)


class AccountGate:
    """One run of an account: it waits for its turn, pays, and is refused.

    `bars` is the market by which what it holds is marked.
    """

    run: AccountRun
    bars: Bars

    def __init__(self, account: SharedAccount, sizing: SizingSchema | None) -> None:
        self.account = account
        self._sizing = sizing
        self._turn = account.turns.join()
        account.members.append(self)
        self._market: Market | None = None
        self._rules = Rules()
        self._entry = Entry(0.0, 0.0, reduced=False)

    def begin(self, run: AccountRun) -> None:
        """Take the settings of the run that this is the gate of."""
        self.run = run
        schema, config = self.account.schema, run.config
        self.terms = Terms(
            float(schema.leverage),
            schema.maintenance_percent / 100,
            config.percent_fee / 100,
            config.percent_slippage / 100,
        )
        self._money = PositionMoney(self.account, self._turn.order, self.terms)

    @property
    def rules(self) -> Rules:
        """The rules of the market that it keeps to."""
        return self._rules

    def keep_to(self, market: Market | None) -> None:
        """Apply the rules of a market; before the run begins."""
        self._market, self._rules = market, rules_of(market)

    async def wait(self, when: int, what: int) -> None:
        """Wait for the turn of what the run does at an instant (ms); see `turns`."""
        await self._turn.wait(when, what)
        if what >= HOLDS:
            self.account.take(when)

    def leave(self) -> None:
        """End: the other runs no longer wait for this one."""
        self._turn.leave()

    def mark(self, when: int) -> float:
        """Return the close of the last candle that has closed at `when`."""
        bars = self.bars
        close = bars.fill if bars.close is None else bars.close
        return float(close[min(bars.row(when), len(close) - 1)])

    def liquidation(self, row: SignalRow) -> float:
        """Return the liquidation price of a position that is entered at the price of a row."""
        paid = slipped(row.price_open, row.side, self.terms.slippage)
        return liquidation_price(row.side, paid, self.terms.leverage, self.terms.maintenance)

    async def admit(self, row: SignalRow, when: int) -> Refusal | None:
        """Return why the account lets no signal wait or open at `when`, and tell of it.

        Where it opens, how much is kept for `opening`.
        """
        account, terms = self.account, self.terms
        stop, level = row.price_stop_loss, self.liquidation(row)
        if stop is not None and is_beyond(row.side, stop, level):
            text = f"price_stop_loss={stop!r} lies at or beyond the liquidation price {level:.8g}"
            return self._refuse(row, when, "liquidation", text)
        if row.pending_at is None:
            return None
        paid, free = slipped(row.price_open, row.side, terms.slippage), account.books.free
        current_moment.set(Moment(self.run, when))
        percent = account.schema.default_percent
        percent = math.nan if percent is None else percent
        wanted = await wanted_by(
            self.run,
            self._sizing,
            row,
            when,
            paid,
            account,
            default_cost(account.taken, percent, len(account.members), terms),
        )
        found = fit(
            wanted,
            paid,
            account.taken,
            free,
            terms,
            self._rules,
            refuses=account.schema.on_cash_shortage == "refuse",
            dust=HAIR * account.schema.balance,
        )
        if isinstance(found, Entry):
            self._entry = found
            account.reductions += found.reduced
            return None
        cost = wanted.quantity * paid if wanted.cost != wanted.cost else wanted.cost
        return self._refuse(row, when, found, self._why(found, cost, free, paid))

    def _why(self, reason: Refusal, cost: float, free: float, paid: float) -> str:
        currency, market = self.account.schema.currency, self._market
        if reason == "size":
            return f"a cost of {cost:.8g} {currency} is no size"
        if reason == "minimum" and market is not None:
            limits = {
                name: getattr(market, name)
                for name in ("quantity_step", "min_quantity", "min_notional")
            }
            known = ", ".join(f"{k}={v:.8g}" for k, v in limits.items() if v is not None)
            return f"{cost / paid:.8g} at {paid:.8g} {currency} is below the market's {known}"
        needs = needed(cost, self.terms.leverage, self.terms.fee)
        return f"a cost of {cost:.8g} {currency} needs {needs:.8g}, {free:.8g} are free"

    @property
    def opening(self) -> Opening:
        """What a position begins with that the account has admitted."""
        return Opening(self._entry.quantity, self.account.books.free, self.terms, self._rules)

    def funded(self, holding: Holding) -> Holding:
        """Return a position that knows what is free now."""
        state = [*holding.state]
        state[at.FREE] = self.account.books.free
        return msgspec.structs.replace(holding, state=tuple(state))

    def open_plain(self, row: SignalRow, when: int) -> None:
        """Take the only entry of a position that was admitted into the books."""
        self._money.begin(row.side, reduced=self._entry.reduced)
        self._money.enter(self._entry.quantity, row.price_open, when)

    def close_plain(self, price: float, when: int) -> None:
        """Take its only exit into the books."""
        self._money.leave(None, price, when)

    def book(self, before: Holding | None, after: Holding, when: int) -> None:
        """Take the fills of a step into the books, and tell what was skipped."""
        if before is None:
            self._money.begin(after.row.side, reduced=self._entry.reduced)
        news = after.rows[0 if before is None else len(before.times) :]
        for i, leg in enumerate(news):
            amount = at.amount_of(after.state, abs(leg.quantity))
            if leg.quantity > 0:
                self._money.enter(amount, leg.price, when)
            else:
                whole = i == len(news) - 1 and not after.is_held
                self._money.leave(None if whole else amount, leg.price, when)
        for place, reason in _SKIPS:
            skipped = int(after.state[place] - (0.0 if before is None else before.state[place]))
            if skipped:
                self.account.skips[reason] += skipped
                self._skipped(after.row, when, reason, skipped)

    def _skipped(self, row: SignalRow, when: int, reason: Refusal, count: int) -> None:
        free, currency = self.account.books.free, self.account.schema.currency
        match reason:
            case "liquidation":
                why = "the stop would lie at or beyond the liquidation price"
            case "cash":
                why = f"{free:.8g} {currency} are free"
            case _:
                why = "it is too small for the market"
        for _ in range(count):
            self._tell(row, when, reason, f"skipped: {why}")

    def money(self, fill: int) -> Money:
        """Return the money of the position after its fill number `fill`, from 0."""
        return self._money.so_far[fill]

    def closed(self, tick: TickClosed, when: int) -> TickClosed:
        """Return a closed result with its money."""
        account = self.account
        account.profits.setdefault(tick.strategy_name, []).append(tick.pnl.pnl_percentage)
        money = msgspec.structs.replace(self._money.so_far[-1], equity_after=account.equity(when))
        return msgspec.structs.replace(tick, money=money)

    def _refuse(self, row: SignalRow, when: int, reason: Refusal, detail: str) -> Refusal:
        self.account.refusals[reason] += 1
        self._tell(row, when, reason, detail)
        return reason

    def _tell(self, row: SignalRow, when: int, reason: Refusal, detail: str) -> None:
        run = self.run
        event = RiskEvent(
            symbol=run.symbol,
            strategy_name=run.strategy_name,
            exchange_name=run.exchange_name,
            mode=run.mode,
            risk_name=self.account.schema.name,
            signal=row,
            price=row.price_open,
            timestamp=when,
            active_count=len(self.account.books.held),
            reason=reason,
            detail=detail,
        )
        self.account.events.append(event)
        run.rejected(event)
