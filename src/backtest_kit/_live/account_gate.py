"""What one live run has to do with its account.

It acts in its turn, alone: it checks, pays and stores as one step. What it has done since it was
stored last is taken back where it can't be stored.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import msgspec

from backtest_kit._engine.account import Tally, check_quotes, markets_of
from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.account_size import AccountRun
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import Turn
from backtest_kit._live.account import LAST, Absent, LiveAccount
from backtest_kit._rules.account import Held
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.managed import Holding
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import begun_anew, same_values
from backtest_kit._state.documents import LiveState, RunKey
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.account import Money
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.errors import (
    DataError,
    FetchError,
    MissedStepsError,
    StateError,
)
from backtest_kit._values.results import Refusal, TickClosed
from backtest_kit._values.signal import SignalRow

#: Seconds for which a run waits for its turn behind another one that is late, by the wall clock.
PATIENCE: Final = 10.0


class _Saved(NamedTuple):
    """What a run can take back to."""

    balance: float
    held: Held | None
    money: list[Money]
    profit: float
    fees: float
    trades: int
    tally: Tally


class LiveGate(AccountGate):
    """What one live run has to do with its account.

    `begins`: over recorded candles, when they begin (ms); by the wall clock `None`.
    """

    _run: Run

    def __init__(
        self, schema: AccountSchema, sizing: SizingSchema | None, begins: int | None
    ) -> None:
        super().__init__(schema, sizing)
        self._begins = begins
        self._recorded = begins is not None
        self._patience = None if self._recorded else PATIENCE
        self._live: LiveAccount | None = None
        self._arrived: Turn | None = None
        #: Set once its place is known, or it has left.
        self.is_seated = asyncio.Event()
        self.has_entered = False
        self._seen: tuple[Bars, ...] = ()
        self._price = float("nan")
        self._knows_market = False
        self._profit = self._fees = 0.0
        self._trades = 0
        self._part: AccountPart | None = None
        self._saved: _Saved | None = None
        #: Profits in percent of what it has closed since.
        self._closed: list[float] = []

    def begin(self, run: AccountRun) -> None:
        """See `AccountGate`."""
        super().begin(run)
        assert isinstance(run, Run)
        self._run = run

    def arrive(self) -> None:
        """Let the other runs of the account wait for this one, from now on.

        Raises:
            StateError: the account is in use with other values, or on another event loop.
        """
        name, exchange = self.schema.account_name, self._run.exchange_name
        accounts = self._run.engine.live_accounts
        live = accounts.get(name)
        if live is None:
            live = accounts[name] = LiveAccount(self.schema, exchange)
        assert isinstance(live, LiveAccount)
        if live.exchange_name != exchange:
            raise StateError(
                f"account {name!r} is in use on exchange {live.exchange_name!r}, and not on "
                f"{exchange!r}: an account has one exchange"
            )
        wrong = same_values(live.schema, msgspec.structs.asdict(self.schema))
        if wrong is not None:
            raise StateError(
                f"account {name!r} is in use with {wrong}: it keeps what it is registered with for "
                "as long as one of its runs goes on; end them, and start them again"
            )
        if live.loop is not asyncio.get_running_loop():
            raise StateError(f"the runs of account {name!r} must share one event loop")
        self._live, self._arrived = live, live.shared.turns.join(LAST + len(live.gates))
        live.gates.append(self)

    async def enter(self, owner: StateOwner, state: LiveState, holding: Holding | None) -> None:
        """Go on from what is stored of the run.

        Raises:
            ArgumentError: the symbol is quoted in another currency than the account's.
            StateError: what is stored is of another account; or as `LiveAccount.load`.
        """
        live, turn, part = self._live, self._arrived, state.account
        assert live is not None
        assert turn is not None
        now = self._run.engine.clock.wall_ms() if self._begins is None else self._begins
        await live.load(owner, now)
        if part is not None and (state.key in live.missing or state.key not in live.places):
            raise StateError(
                f"what {state.strategy_name} on {state.symbol} holds was not known when account "
                f"{self.schema.account_name!r} began: end all of its runs, and start them again"
            )
        if part is not None:
            turn.order = live.places[state.key]
            part = msgspec.structs.replace(part, order=turn.order)
        elif state.key in live.missing and holding is None:
            del live.missing[state.key]  # somebody has let it begin anew, and it is here now
            turn.order = live.places[state.key]
            self._run.error("account", StateError(begun_anew(self.schema.account_name, state.key)))
        elif holding is not None:
            raise StateError(
                f"{state.strategy_name} on {state.symbol} holds a position that was opened without "
                f"an account: let it close before it joins account {self.schema.account_name!r}"
            )
        else:
            before = live.gates[: live.gates.index(self)]
            for other in before:
                await other.is_seated.wait()
            turn.order = live.place(state.key)
        self.join(live.shared, turn)
        if part is not None:
            self._profit, self._fees, self._trades = part.profit, part.fees, part.trades
        if part is not None and holding is not None and part.money is not None:
            self._money.go_on(holding.row.side, [part.money] * len(holding.times))
        if part is not None and part.mark is not None:
            self._price = part.mark
        self._part = part
        self.has_entered = True
        self.is_seated.set()
        if live.trouble and not live.has_told:
            live.has_told = True
            self._run.error("account", StateError(live.trouble))
        if self._recorded:
            await self._ask_market()
        else:
            await self._ask_market_soon()

    async def keep_place(self, key: RunKey) -> None:
        """Store its place, once its first part is stored; raises StateError."""
        if self._live is not None:
            await self._live.keep_place(key)

    async def _ask_market_soon(self) -> None:
        """Ask for the rules of the market; where they can't be had, they are asked for again."""
        self.pause()  # the others don't wait for an answer
        try:
            async with self.in_time():
                await self._ask_market()
        except DataError as error:
            self._run.error("market", error)
        except TimeoutError:
            why = f"get_market for {self.symbol} has not answered for {PATIENCE:g} s"
            self._run.error("market", FetchError(why))
        finally:
            self.resume()

    async def _ask_market(self) -> None:
        """Ask once for the rules of the symbol's market."""
        run = self._run
        found = await markets_of(run.exchange, [run.symbol])
        check_quotes(self.schema, run.exchange_name, [*found.items()])
        self.keep_to(found[run.symbol])
        self._knows_market = True

    async def wait(self, when: int, what: int) -> None:
        """See `AccountGate`; from then on what is done may be taken back."""
        books, order, saved = self.account.books, self._turn.order, self._saved
        own = 0.0 if saved is None else books.balance - saved.balance
        gate, was = self._run.risk_gate, self._run.risk_gate.paused
        gate.pause()  # who waits for this one there may be whom it waits for here
        try:
            await super().wait(when, what)
        finally:
            gate.paused = was
            if saved is not None:  # others may have acted meanwhile, and that stands
                self._saved = saved._replace(balance=books.balance - own)
        if saved is None:
            held = books.held.get(order)
            self._saved = _Saved(
                books.balance,
                None if held is None else msgspec.structs.replace(held),
                [*self._money.so_far],
                self._profit,
                self._fees,
                self._trades,
                self.tally,
            )

    async def admit(self, row: SignalRow, when: int) -> Refusal | None:
        """See `AccountGate`.

        Raises:
            DataError: the rules of the market can't be had.
        """
        if self._trouble:
            return self._refuse(row, when, "cash", self._trouble)
        try:
            async with self.in_time():
                if not self._knows_market:
                    await self._ask_market()
                return await super().admit(row, when)
        except TimeoutError:
            why = f"no size was there after {PATIENCE:g} s, and the others wait"
            self._run.error("sizing", MissedStepsError(f"{why}: nothing was opened"))
            return self._refuse(row, when, "size", why)

    def in_time(self) -> asyncio.Timeout:
        """Limit what is asked while the others wait; over recorded candles nothing is."""
        return asyncio.timeout(self._patience)

    @property
    def _trouble(self) -> str:
        return "" if self._live is None else self._live.trouble

    def _free(self, when: int) -> float:
        return 0.0 if self._trouble else super()._free(when)

    def _skipped(self, row: SignalRow, when: int, reason: Refusal, count: int) -> None:
        if reason != "cash" or not self._trouble:
            super()._skipped(row, when, reason, count)
            return
        for _ in range(count):
            self._tell(row, when, reason, f"skipped: {self._trouble}")

    def book(self, before: Holding | None, after: Holding, when: int) -> None:
        """See `AccountGate`."""
        self._trades += before is None
        super().book(before, after, when)

    def closed(self, tick: TickClosed, when: int) -> TickClosed:
        """See `AccountGate`."""
        tick = super().closed(tick, when)
        assert tick.money is not None
        self._closed.append(tick.pnl.pnl_percentage)
        self._profit += tick.money.profit
        self._fees += tick.money.fees
        return tick

    def part(self) -> AccountPart:
        """Return what is to be stored of it."""
        live, part = self._live, self._part
        assert live is not None
        holds = self._turn.order in self.account.books.held
        mark = self.mark(self._turn.key[0]) if holds else None
        account, tally = self.account, self.tally
        if part is not None and self._saved is None:  # what it has counted since is not money
            counts = msgspec.structs.asdict(tally)
            return msgspec.structs.replace(part, mark=mark, revision=live.revision, **counts)
        live.booked += 1
        return AccountPart(
            name=self.schema.account_name,
            order=self._turn.order,
            profit=self._profit,
            fees=self._fees,
            trades=self._trades,
            money=self._money.so_far[-1] if holds else None,
            mark=mark,
            booked=live.booked,
            left=account.books.balance,
            taken_at=max(account.taken_at, 0),
            taken=account.taken,
            refusals=tally.refusals,
            skips=tally.skips,
            reductions=tally.reductions,
            not_charged=tally.not_charged,
            revision=live.revision,
        )

    def stored(self, part: AccountPart) -> None:
        """Note that its part is stored: what it has done stands, if that is its newest part."""
        if part is not self._part:
            self._part = part
            self._forget()

    def _forget(self) -> None:
        """Let what it has done stand."""
        self._saved, self._closed = None, []

    def undo(self) -> None:
        """Take back what it has done since it was stored, and let the others go on."""
        saved = self._saved
        if saved is None:
            return
        books, order = self.account.books, self._turn.order
        books.balance = saved.balance
        books.held.pop(order, None)
        if saved.held is not None:
            books.held[order] = saved.held
        self._money.so_far = saved.money
        self._profit, self._fees, self._trades = saved.profit, saved.fees, saved.trades
        self.account.tallies[order] = saved.tally
        for percent in self._closed:
            self.account.profits[self.strategy_name].remove(percent)
        self._forget()
        self._turn.stop_acting()

    def look_at(self, bars: Bars) -> None:
        """Mark what it holds by these bars, and for earlier instants by those before them."""
        if not self._seen or bars is not self._seen[0]:
            self._seen = (bars, *self._seen[:1])
        self.bars = bars

    def mark(self, when: int) -> float:
        """See `AccountGate`; the last price that it saw where no bars reach back that far."""
        for bars in self._seen:
            if when >= bars.first:
                close = bars.fill if bars.close is None else bars.close
                self._price = float(close[min(bars.row(when), len(close) - 1)])
                return self._price
        return self._price

    async def reach(self, when: int) -> None:
        """Begin the step `when` (ms): over recorded candles once all others have come that far.

        So what this one holds is marked by the candles of that step for as long as others need it.
        """
        if self._recorded:
            await self._turn.wait_for_others(when)
        assert self._live is not None
        try:
            await self._live.note_days(when)
        except StateError as error:  # the next day's end is noted again
            self._run.error("account", error)

    def pass_to(self, when: int, what: int) -> None:
        """Say that it does nothing before `what` it may do at `when` (ms)."""
        self._forget()
        self._turn.pass_to(when, what)

    def pause(self) -> None:
        """Let the others go on without it."""
        if self.has_entered:
            self._turn.pause()

    def resume(self) -> None:
        """Say that it goes on after a pause."""
        if self.has_entered:
            self._turn.resume()

    def leave(self) -> None:
        """End; what it holds keeps its collateral, and is worth the last price that it saw."""
        live, turn = self._live, self._arrived
        if live is None or turn is None or self not in live.gates:
            return
        self.is_seated.set()
        live.gates.remove(self)
        if self.has_entered:
            price = self.mark(self._seen[0].last) if self._seen else self._price
            absent = Absent(self.symbol, self.strategy_name, price)
            live.left(turn.order, None if self._part is None else absent)
        turn.leave()
        if not live.gates:
            self._run.engine.live_accounts.pop(self.schema.account_name, None)


def live_gate(run: Run) -> LiveGate | None:
    """Return what a live run has to do with its account; `None`: it is in none."""
    gate = run.account
    assert gate is None or isinstance(gate, LiveGate)
    return gate
