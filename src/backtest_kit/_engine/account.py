"""An account in simulated time: what its runs do to its money, and what it refuses them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import msgspec

from backtest_kit._engine.account_size import AccountRun, wanted_by
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.fill_book import FillBook
from backtest_kit._engine.record import KEPT_REJECTIONS
from backtest_kit._engine.turns import HOLDS, Turn, Turns
from backtest_kit._rules import holding as at
from backtest_kit._rules.account import (
    HAIR,
    Books,
    Rules,
    Terms,
    is_beyond,
    liquidation_price,
    needed,
    slipped,
)
from backtest_kit._rules.managed import Holding, Opening
from backtest_kit._rules.sizing import Entry, default_cost, fit, rules_of
from backtest_kit._values.account import AccountPosition, AccountView, Market, Money
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.results import Refusal, TickClosed
from backtest_kit._values.signal import SignalRow

#: What a state of `holding` counts, and the reason that it stands for.
_SKIPS: Final[tuple[tuple[int, Refusal], ...]] = (
    (at.BEYOND_LIQUIDATION, "liquidation"),
    (at.SHORT_OF_CASH, "cash"),
    (at.TOO_SMALL, "minimum"),
)


class SharedAccount:
    """The money that the runs of a portfolio share, from the beginning of the portfolio on.

    `taken` is the equity of the instant that came last, by which its sizes are measured.
    """

    def __init__(self, schema: AccountSchema) -> None:
        self.schema = schema
        self.books = Books(schema.balance, schema.leverage)
        self.gates: list[AccountGate] = []
        self.fills = FillBook()
        self.turns = Turns()
        self.taken = float(schema.balance)
        self._taken_at = -1
        #: How often it refused a trade, and skipped an entry or a partial exit, by reason.
        self.refusals: Counter[str] = Counter()
        self.skips: Counter[str] = Counter()
        self.reductions = 0
        self.not_charged = 0.0
        #: The newest of what it refused or skipped.
        self.events: deque[RiskEvent] = deque(maxlen=KEPT_REJECTIONS)
        self.trades = 0
        #: Profits in percent of the closed trades of each strategy, in order.
        self.profits: dict[str, list[float]] = {}

    def join(self, sizing: SizingSchema | None) -> AccountGate:
        """Return what a run has to do with the account; runs join in the order they are named."""
        gate = AccountGate(self, self.turns.join(), sizing)
        self.gates.append(gate)
        return gate

    def equity(self, when: int) -> float:
        """Return the balance with all open profit at the marks of an instant (ms)."""
        return self.books.equity({run: self.gates[run].mark(when) for run in self.books.held})

    def take(self, when: int) -> None:
        """Take the equity of an instant (ms), once."""
        if self._taken_at != when:
            self.taken, self._taken_at = self.equity(when), when

    def view(self, when: int) -> AccountView:
        """Return the account as a sizing function sees it."""
        positions = []
        for run, held in self.books.held.items():
            gate = self.gates[run]
            positions.append(
                AccountPosition(
                    symbol=gate.run.symbol,
                    strategy_name=gate.run.strategy_name,
                    position="long" if held.side > 0 else "short",
                    quantity=held.quantity,
                    cost=held.basis,
                    price=gate.mark(when),
                )
            )
        return AccountView(
            equity=self.taken,
            free=self.books.free,
            balance=self.books.balance,
            positions=tuple(positions),
        )


class AccountGate:
    """What one run has to do with its account: it waits for its turn, pays, and is refused."""

    run: AccountRun

    def __init__(
        self,
        account: SharedAccount,
        turn: Turn,
        sizing: SizingSchema | None,
    ) -> None:
        self.account = account
        self.sizing = sizing
        self.market: Market | None = None
        self._turn = turn
        self._rules = Rules()
        self._entry: Entry | None = None
        self._trade = -1
        self._moneys: list[Money] = []

    def keep_to(self, market: Market | None) -> None:
        """Apply the rules of a market; before the run begins."""
        self.market, self._rules = market, rules_of(market)

    @property
    def _place(self) -> int:
        return self._turn.order

    @property
    def terms(self) -> Terms:
        """The terms on which this run trades."""
        schema, config = self.account.schema, self.run.config
        return Terms(
            float(schema.leverage),
            schema.maintenance_percent / 100,
            config.percent_fee / 100,
            config.percent_slippage / 100,
        )

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
        run = self.run
        segment = run.view.loaded(run.symbol, run.config.base_interval)
        assert segment is not None
        row = when // segment.step - segment.first_index - 1
        return float(segment.columns[4][min(row, segment.rows - 1)])

    async def admit(self, row: SignalRow, when: int) -> Refusal | None:
        """Return why the account lets no signal wait or open at `when`, and tell of it.

        Where it opens, how much is kept for `opening`.
        """
        terms, side = self.terms, float(row.side)
        paid = slipped(row.price_open, side, terms.slippage)
        level = liquidation_price(side, paid, terms.leverage, terms.maintenance)
        if row.price_stop_loss is not None and is_beyond(side, row.price_stop_loss, level):
            text = (
                f"price_stop_loss={row.price_stop_loss!r} lies at or beyond the liquidation price"
            )
            return self._refuse(row, when, "liquidation", f"{text} {level:.8g}")
        if row.pending_at is None:
            return None
        account = self.account
        free = account.books.free
        current_moment.set(Moment(self.run, when))
        wanted = await wanted_by(
            self.run,
            self.sizing,
            row,
            when,
            paid,
            account.view(when),
            self._default_cost(),
            account.profits.get(row.strategy_name, []),
            account.schema.days_per_year,
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
        return self._refuse(row, when, found, self._why(found, cost, free, paid, terms))

    def _default_cost(self) -> float:
        account = self.account
        runs, percent = len(account.gates), account.schema.default_percent
        return default_cost(account.taken, percent, runs, self.terms)

    def _why(self, reason: Refusal, cost: float, free: float, paid: float, terms: Terms) -> str:
        currency = self.account.schema.currency
        if reason == "size":
            return f"a cost of {cost:.8g} {currency} is no size"
        needs = needed(cost, terms.leverage, terms.fee)
        text = f"a cost of {cost:.8g} {currency} needs {needs:.8g}, {free:.8g} are free"
        if reason == "minimum" and self.market is not None:
            limits = {
                "quantity_step": self.market.quantity_step,
                "min_quantity": self.market.min_quantity,
                "min_notional": self.market.min_notional,
            }
            known = ", ".join(f"{k}={v:.8g}" for k, v in limits.items() if v is not None)
            text = f"{cost / paid:.8g} at {paid:.8g} {currency} is below the market's {known}"
        return text

    @property
    def opening(self) -> Opening:
        """What a position begins with that the account has admitted."""
        assert self._entry is not None
        return Opening(self._entry.quantity, self.account.books.free, self.terms, self._rules)

    def funded(self, holding: Holding) -> Holding:
        """Return a position that knows what is free now."""
        state = [*holding.state]
        state[at.FREE] = self.account.books.free
        return msgspec.structs.replace(holding, state=tuple(state))

    def book(self, before: Holding | None, after: Holding, when: int) -> None:
        """Take the fills of a step into the books, and tell what was skipped."""
        account, terms, row = self.account, self.terms, after.row
        if before is None:
            account.trades += 1
            self._trade = account.trades - 1
            self._moneys = []
        known = 0 if before is None else len(before.times)
        news = after.rows[known:]
        for i, leg in enumerate(news):
            whole = i == len(news) - 1 and not after.is_held
            self._fill(after, leg.quantity, leg.price, when, terms, whole=whole)
        for place, reason in _SKIPS:
            skipped = int(after.state[place] - (0.0 if before is None else before.state[place]))
            for _ in range(skipped):
                account.skips[reason] += 1
                self._tell(
                    row,
                    when,
                    reason,
                    "a level is skipped: "
                    f"{account.books.free:.8g} {account.schema.currency} are free",
                )

    def _fill(
        self,
        after: Holding,
        relative: float,
        price: float,
        when: int,
        terms: Terms,
        *,
        whole: bool,
    ) -> None:
        """Take one fill into the books; `whole`: it closes all that is held."""
        account, books, state = self.account, self.account.books, after.state
        run, side = self._place, after.row.side
        amount = at.amount_of(state, abs(relative))
        before = self._moneys[-1] if self._moneys else None
        if relative > 0:
            cost = books.enter(run, side, amount, price, terms)
            fee, slippage = (
                terms.fee * cost,
                amount * abs(slipped(price, side, terms.slippage) - price),
            )
            account.fills.add(
                when, run, self._trade, side, amount, cost, -fee, fee, slippage, 0.0, cost, False
            )
            self._moneys.append(self._entered(before, amount, cost, fee, slippage))
            return
        if whole:
            amount = books.held[run].quantity
        done = books.leave(run, amount, price, terms)
        account.fills.add(
            when,
            run,
            self._trade,
            side,
            -amount,
            -done.basis,
            done.balance,
            done.fee,
            done.slippage,
            done.profit,
            done.value,
            done.liquidated,
        )
        assert before is not None
        account.not_charged += done.not_charged
        profit = before.profit + done.balance
        self._moneys.append(
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

    def _entered(
        self, before: Money | None, amount: float, cost: float, fee: float, slippage: float
    ) -> Money:
        if before is None:
            assert self._entry is not None
            return Money(
                quantity=amount,
                cost=cost,
                first_cost=cost,
                fees=fee,
                slippage=slippage,
                profit=-fee,
                profit_percent=-fee / cost * 100,
                equity_before=self.account.taken,
                reduced=self._entry.reduced,
            )
        profit = before.profit - fee
        return msgspec.structs.replace(
            before,
            quantity=before.quantity + amount,
            cost=before.cost + cost,
            fees=before.fees + fee,
            slippage=before.slippage + slippage,
            profit=profit,
            profit_percent=profit / (before.cost + cost) * 100,
        )

    def money(self, fill: int) -> Money:
        """Return the money of the position after its fill number `fill`, from 0."""
        return self._moneys[fill]

    def closed(self, tick: TickClosed, when: int) -> TickClosed:
        """Return a closed result with its money."""
        account = self.account
        account.profits.setdefault(tick.strategy_name, []).append(tick.pnl.pnl_percentage)
        money = msgspec.structs.replace(self._moneys[-1], equity_after=account.equity(when))
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


def check_quotes(
    schema: AccountSchema, exchange_name: str, markets: Sequence[tuple[str, Market | None]]
) -> None:
    """Raise an `ArgumentError` where a symbol is quoted in another currency than the account's."""
    for symbol, market in markets:
        if market is not None and market.quote != schema.currency:
            raise ArgumentError(
                f"account {schema.name!r} is in {schema.currency}, and {symbol} on exchange "
                f"{exchange_name!r} is quoted in {market.quote}; take symbols quoted in "
                f"{schema.currency}, or an account in {market.quote}"
            )
