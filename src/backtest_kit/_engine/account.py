"""An account in simulated time, as its runs share it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from backtest_kit._engine.engine import describe
from backtest_kit._engine.fill_book import FillBook
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.record import KEPT_REJECTIONS
from backtest_kit._engine.turns import Turns
from backtest_kit._rules.account import Books, in_turn
from backtest_kit._values.account import AccountPosition, AccountView, Market
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.errors import ArgumentError, DataError, FetchError
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.schemas import ExchangeSchema


class Member(Protocol):
    """A run of an account, as the account knows it."""

    @property
    def symbol(self) -> str: ...
    @property
    def strategy_name(self) -> str: ...

    def mark(self, when: int) -> float:
        """Return the price of what it holds at an instant (ms)."""
        ...


class Tally(msgspec.Struct, frozen=True):
    """What an account refused, skipped and reduced of a run, and lost beyond its collaterals.

    `refusals` of trades and `skips` of further entries and parts of exits are counts by reason.
    """

    refusals: dict[str, int] = {}
    skips: dict[str, int] = {}
    reductions: int = 0
    not_charged: float = 0.0


class SharedAccount:
    """The money that some runs share, from its beginning on.

    `taken` is the equity of `taken_at` (ms), the instant that came last, by which its sizes are
    measured.
    """

    def __init__(self, schema: AccountSchema, fills: FillBook | None = None) -> None:
        self.schema = schema
        self.books = Books(schema.balance, schema.leverage)
        #: Its runs, by their place in the order in which they are named.
        self.members: dict[int, Member] = {}
        #: All fills, where they are kept.
        self.fills = fills
        self.turns = Turns()
        self.taken = float(schema.balance)
        self.taken_at = -1
        #: What was refused and the like, by run.
        self.tallies: dict[int, Tally] = {}
        #: The newest of what it refused or skipped.
        self.events: deque[RiskEvent] = deque(maxlen=KEPT_REJECTIONS)
        #: How many positions were opened.
        self.trades = 0
        #: Profits in percent of the closed trades of each strategy, in order.
        self.profits: dict[str, list[float]] = {}

    @property
    def tally(self) -> Tally:
        """What was refused and the like, of all runs."""
        all_ = self.tallies.values()
        refusals, skips = Counter[str](), Counter[str]()
        for tally in all_:
            refusals.update(tally.refusals)
            skips.update(tally.skips)
        lost = in_turn(tally.not_charged for tally in all_)
        return Tally(dict(refusals), dict(skips), sum(x.reductions for x in all_), lost)

    def equity(self, when: int) -> float:
        """Return the balance with all open profit at the marks of an instant (ms)."""
        return self.books.equity({run: self.members[run].mark(when) for run in self.books.held})

    def take(self, when: int) -> None:
        """Take the equity of an instant (ms), once."""
        if self.taken_at != when:
            self.taken, self.taken_at = self.equity(when), when

    def view(self, when: int) -> AccountView:
        """Return the account as a sizing function sees it."""
        positions = []
        for run, held in self.books.held.items():
            member = self.members[run]
            positions.append(
                AccountPosition(
                    symbol=member.symbol,
                    strategy_name=member.strategy_name,
                    position="long" if held.side > 0 else "short",
                    quantity=held.quantity,
                    cost=held.basis,
                    price=member.mark(when),
                )
            )
        return AccountView(
            equity=self.taken,
            free=self.books.free,
            balance=self.books.balance,
            positions=tuple(positions),
        )


async def markets_of(exchange: ExchangeSchema, symbols: Sequence[str]) -> dict[str, Market | None]:
    """Ask an exchange once for the rules of each symbol's market; `None`: it says nothing.

    Raises:
        ArgumentError: it answers with something else, or with a market that can't be.
        FetchError: `get_market` raises; a `DataError` of its own is raised as it is.
    """
    ask, found = exchange.get_market, dict[str, Market | None]()
    for symbol in dict.fromkeys(symbols):
        place = f"get_market for {symbol}"
        try:
            market = None if ask is None else await call_user_code(ask, symbol)
        except DataError:
            raise
        except ArgumentError as error:
            raise ArgumentError(f"{place}: {error}") from error
        except Exception as error:
            raise FetchError(f"{place} raised {describe(error)}") from error
        if market is not None and not isinstance(market, Market):
            raise ArgumentError(
                f"get_market of exchange {exchange.name!r} returned {market!r} for {symbol}; "
                "return a Market, or None"
            )
        found[symbol] = market
    return found


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
