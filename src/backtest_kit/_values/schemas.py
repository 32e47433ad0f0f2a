"""What can be registered: one frozen record each, checked when it is made."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Literal, cast, get_args

import msgspec

from backtest_kit._values.account import Market
from backtest_kit._values.actions import Action, Position
from backtest_kit._values.errors import RegistrationError, did_you_mean
from backtest_kit._values.numbers import is_whole
from backtest_kit._values.signal import Signal
from backtest_kit._values.time import INTERVALS, MINUTE, Interval, to_ms
from backtest_kit._values.windows import Windows

GetCandles = Callable[[str, str, int, int], Any]
#: A proposal, as an object or a mapping of its fields.
SignalLike = Signal | Mapping[str, object]
GetSignal = Callable[[str, datetime], SignalLike | Awaitable[SignalLike | None] | None]
#: What `manage` wants done: nothing, an action, or several in order.
Managing = Action | Sequence[Action] | None
Manage = Callable[[Position, datetime], Managing | Awaitable[Managing]]
Format = Callable[[str, float], str | Awaitable[str]]
GetMarket = Callable[[str], Market | Awaitable[Market | None] | None]
#: What a walker can compare by; all are figures of `Statistics`.
Metric = Literal[
    "sharpe_ratio",
    "annualized_sharpe_ratio",
    "win_rate",
    "avg_pnl",
    "total_pnl",
    "certainty_ratio",
    "expected_yearly_returns",
]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
#: What a walker with an account can compare by, too; all are figures of `AccountStatistics`.
AccountMetric = Literal[
    "account_growth",
    "account_cagr",
    "account_sharpe",
    "account_sortino",
    "account_calmar",
    "account_max_drawdown_percent",
]
ACCOUNT_METRICS: Final[tuple[AccountMetric, ...]] = get_args(AccountMetric)
#: What the best of a walk has to beat.
Benchmark = Literal[0, "hold", "random"]
BENCHMARKS: Final[tuple[Benchmark, ...]] = get_args(Benchmark)

#: Candles that an array strategy sees where nothing else is said.
ARRAY_WARMUP: Final = 200


def check_writable(field: str, text: str) -> None:
    """Raise a `RegistrationError` for a text that no file can hold: with a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RegistrationError(
            f"{field}={text!r} can't be written: {error.reason} at position {error.start}"
        ) from None


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """Base: the name is checked, the callbacks become an object with the given functions."""

    NAME: ClassVar[str] = ""
    CALLBACKS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.strip():
            raise RegistrationError(f"{self.NAME} must be a non-empty string, not {name!r}")
        check_writable(self.NAME, name)
        callbacks = getattr(self, "callbacks", None)
        if callbacks is not None:
            normal = _callbacks(callbacks, self.CALLBACKS, f"{self.NAME}={name!r}")
            msgspec.structs.force_setattr(self, "callbacks", normal)
        self._check(f"{self.NAME}={name!r}")

    @property
    def name(self) -> str:
        """The name under which this is registered."""
        return getattr(self, self.NAME)  # type: ignore[no-any-return]

    def _check(self, me: str) -> None:
        """Check the fields of one kind; `me` names the record in messages."""

    def callback(self, name: str) -> Callable[..., Any] | None:
        """Return the callback of this name, or `None` where the user gave none."""
        return getattr(getattr(self, "callbacks", None), name, None)


class ExchangeSchema(Schema, frozen=True, kw_only=True, eq=False):
    """Where candles come from; two are equal if they are one, since candles are kept for each.

    `get_candles(symbol, interval, since, limit)` returns the candles whose open time lies in
    `[since, since + limit * interval)`, `since` in milliseconds UTC; sync (then it runs in a
    worker thread, so that a hanging call can be given up) or async. `page_limit` is how many one
    call may ask for, where it is not `max_candles_per_request`. `data_range(symbol)` returns the
    first open time and the end in milliseconds, where that is known. `get_market(symbol)`, sync or
    async, returns the rules of a market, for runs with an account.

    `intervals` are those it has, for all symbols or as a function of one; not given, it is taken
    to have 1m. `calendar` says when the market is closed: "weekdays" (open Monday to Friday, UTC),
    "data" (closed where there is no candle), or a name that the package `exchange-calendars` knows,
    such as "XNYS"; without one it never is.
    """

    NAME = "exchange_name"
    CALLBACKS = ("on_candle_data",)

    exchange_name: str
    get_candles: GetCandles
    format_price: Format | None = None
    format_quantity: Format | None = None
    get_market: GetMarket | None = None
    page_limit: int | None = None
    data_range: Callable[[str], tuple[int, int] | None] | None = None
    close: Callable[[], Any] | None = None
    intervals: Sequence[str] | Callable[[str], Sequence[str] | None] | None = None
    calendar: str | None = None
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        check_function(me, "get_candles", self.get_candles)
        if self.intervals is not None and not callable(self.intervals):
            if isinstance(self.intervals, str) or not self.intervals:
                raise RegistrationError(
                    f"{me}: intervals={self.intervals!r} must be a list of intervals, or a function"
                )
            for interval in self.intervals:
                check_interval_name(me, interval)
        if self.calendar is not None and (not isinstance(self.calendar, str) or not self.calendar):
            raise RegistrationError(
                f'{me}: calendar={self.calendar!r} must be "weekdays", "data", or a name that '
                "exchange-calendars knows"
            )
        for field in ("format_price", "format_quantity", "get_market", "data_range", "close"):
            if getattr(self, field) is not None:
                check_function(me, field, getattr(self, field))
        if self.page_limit is not None and not is_whole(self.page_limit):
            raise RegistrationError(
                f"{me}: page_limit={self.page_limit!r} must be a whole number, 1 or more"
            )


class StrategySchema(Schema, frozen=True, kw_only=True):
    """A strategy: `get_signal(symbol, when)`, asked at most once per `interval`.

    It is not asked before `warmup` candles of `interval` have closed within the data; 0: from the
    start. Or `get_signals(candles) -> Signals` over whole arrays, which sees the last `warmup`
    candles (`None`: 200). Or `make()`, called at the start of each run of each symbol, which
    returns the function of that run, or an object with `get_signal` or `get_signals`, with
    `manage` and callbacks as methods where it likes, and with `save` and `load` where a live run is
    to keep its own state.

    `manage(position, when)` is asked while a position is open, at most once per `manage_interval`
    ("1m": at each step), and returns an action, several in order, or `None`.

    `risk_name` is one risk profile or several, all of which must agree. `sizing_name` says what a
    signal without a size of its own costs, in runs with an account.
    """

    NAME = "strategy_name"
    CALLBACKS = (
        "on_tick",
        "on_open",
        "on_active",
        "on_idle",
        "on_close",
        "on_schedule",
        "on_cancel",
        "on_write",
        "on_partial_profit",
        "on_partial_loss",
        "on_partial",
        "on_add",
        "on_move",
        "on_manage_error",
        "on_command",
    )

    strategy_name: str
    interval: Interval
    get_signal: GetSignal | None = None
    get_signals: Callable[[Any], Any] | None = None
    make: Callable[[], Any] | None = None
    manage: Manage | None = None
    manage_interval: Interval = "1m"
    warmup: int = cast("int", None)  # a number once it is checked
    risk_name: str | Sequence[str] | None = None
    sizing_name: str | None = None
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        check_interval_name(me, self.interval)
        if self.manage is not None:
            check_function(me, "manage", self.manage)
        check_interval_name(me, self.manage_interval, "manage_interval")
        ways = ("get_signal", "get_signals", "make")
        given = [field for field in ways if getattr(self, field) is not None]
        if len(given) != 1:
            raise RegistrationError(f"{me}: give either get_signal or get_signals, or make")
        check_function(me, given[0], getattr(self, given[0]))
        if isinstance(self.get_signal, type):
            raise RegistrationError(f"{me}: get_signal is a class; give it as make")
        arrays = self.get_signals is not None
        if self.warmup is None:
            msgspec.structs.force_setattr(self, "warmup", ARRAY_WARMUP if arrays else 0)
        if not is_whole(self.warmup, int(arrays)):
            raise RegistrationError(
                f"{me}: warmup={self.warmup!r} must be a whole number, {arrays:d} or more"
            )
        if any(not isinstance(name, str) or not name for name in self.risk_names):
            raise RegistrationError(f"{me}: risk_name={self.risk_name!r} must be names")
        if self.sizing_name is not None and (
            not isinstance(self.sizing_name, str) or not self.sizing_name
        ):
            raise RegistrationError(f"{me}: sizing_name={self.sizing_name!r} must be a name")

    @property
    def risk_names(self) -> tuple[str, ...]:
        """The names of the risk profiles, in order, each once."""
        if self.risk_name is None:
            return ()
        if isinstance(self.risk_name, str):
            return (self.risk_name,)
        return tuple(dict.fromkeys(self.risk_name))


def source_of(strategy: StrategySchema) -> str:
    """Return the source of a strategy's functions or class; empty where it can't be read."""
    asked: Any = strategy.get_signal or strategy.get_signals or strategy.make
    return "\n\n".join(filter(None, map(_source, (asked, strategy.manage))))


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed in a shell, compiled, an object that is called, or none
        return ""


class FrameSchema(Schema, frozen=True, kw_only=True):
    """A range of time to backtest over: `start_date` to `end_date`, both included."""

    NAME = "frame_name"
    CALLBACKS = ("on_timeframe",)

    frame_name: str
    interval: Interval
    start_date: datetime
    end_date: datetime
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        check_interval_name(me, self.interval)
        try:
            start, end = to_ms(self.start_date, "start_date"), to_ms(self.end_date, "end_date")
        except (TypeError, ValueError) as error:
            raise RegistrationError(f"{me}: {error}") from None
        if start % MINUTE:
            raise RegistrationError(
                f"{me}: start_date={self.start_date.isoformat()} must be a whole minute"
            )
        if end < start:
            raise RegistrationError(
                f"{me}: end_date={self.end_date.isoformat()} is before "
                f"start_date={self.start_date.isoformat()}"
            )

    @property
    def timeline(self) -> range:
        """The instants of the frame, milliseconds UTC."""
        step = INTERVALS[self.interval]
        return range(to_ms(self.start_date), to_ms(self.end_date) + 1, step)


class RiskSchema(Schema, frozen=True, kw_only=True):
    """A risk profile: checks that must all agree before a signal opens.

    Each check gets a `RiskCheck`; it rejects by returning a reason (a text), or by raising a
    ValueError, a RuntimeError, an AssertionError, an Exception, or an error of your own. Any other
    error is a bug of the check: it rejects, too, and is an error event.
    """

    NAME = "risk_name"
    CALLBACKS = ("on_allowed", "on_rejected")

    risk_name: str
    validations: Sequence[Callable[[Any], Any]]
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        if isinstance(self.validations, str) or not isinstance(self.validations, Sequence):
            raise RegistrationError(f"{me}: validations must be a list of functions")
        for i, check in enumerate(self.validations):
            check_function(me, f"validations[{i}]", check)


def check_function(me: str, field: str, value: object) -> None:
    if not callable(value):
        raise RegistrationError(f"{me}: {field} must be a function, not {value!r}")


def check_interval_name(me: str, interval: object, name: str = "interval") -> None:
    if interval not in INTERVALS:
        known = " ".join(INTERVALS)
        raise RegistrationError(f"{me}: unknown {name} {interval!r}; use one of: {known}")


def _callbacks(given: object, known: tuple[str, ...], me: str) -> SimpleNamespace:
    if isinstance(given, Mapping):
        functions = dict(given)
    else:
        names = (name for name in dir(given) if name.startswith("on_"))
        functions = {name: getattr(given, name) for name in names}
    for name, function in functions.items():
        if name not in known:
            raise RegistrationError(
                f"{me}: unknown callback {name!r}{did_you_mean(str(name), known)}"
            )
        if function is not None and not callable(function):
            raise RegistrationError(f"{me}: callback {name} must be a function, not {function!r}")
    return SimpleNamespace(**{n: f for n, f in functions.items() if f is not None})


class WalkerSchema(Schema, frozen=True, kw_only=True):
    """Strategies to compare over one exchange and frame, by a metric of which more is better.

    `windows`: choose in one part of the frame and judge in the next, all along it. `account_name`:
    each strategy plays with the money of this account, from its balance on. `benchmark` is what the
    best has to beat: 0 (no profit after costs), `"hold"` (buying and holding) or `"random"` (random
    entries with the same exits, sides and number of trades).
    """

    NAME = "walker_name"
    CALLBACKS = ("on_strategy_start", "on_strategy_complete", "on_strategy_error", "on_complete")

    walker_name: str
    exchange_name: str
    frame_name: str
    strategies: Sequence[str]
    metric: Metric | AccountMetric = "sharpe_ratio"
    windows: Windows | None = None
    account_name: str | None = None
    benchmark: Benchmark = 0
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        if isinstance(self.strategies, str) or not isinstance(self.strategies, Sequence):
            raise RegistrationError(f"{me}: strategies must be a list of names")
        if not self.strategies:
            raise RegistrationError(f"{me}: strategies is empty; name at least one")
        seen: set[str] = set()
        for name in self.strategies:
            if not isinstance(name, str):
                raise RegistrationError(f"{me}: strategies has {name!r}, which is no name")
            if name in seen:
                raise RegistrationError(f"{me}: strategies has {name!r} twice")
            seen.add(name)
        if self.metric not in (*METRICS, *ACCOUNT_METRICS):
            tail = did_you_mean(str(self.metric), (*METRICS, *ACCOUNT_METRICS))
            raise RegistrationError(f"{me}: unknown metric {self.metric!r}{tail}")
        if self.metric in ACCOUNT_METRICS and self.account_name is None:
            raise RegistrationError(f"{me}: metric={self.metric!r} needs an account_name")
        if self.metric in ACCOUNT_METRICS and self.windows is not None:
            raise RegistrationError(
                f"{me}: windows are compared by the trades within them; take one of the metrics "
                f"{', '.join(METRICS)}, not {self.metric!r}"
            )
        if self.benchmark not in BENCHMARKS:
            raise RegistrationError(
                f"{me}: benchmark={self.benchmark!r} must be 0, 'hold' or 'random'"
            )
        if self.windows is not None and not isinstance(self.windows, Windows):
            raise RegistrationError(f"{me}: windows must be a Windows, not {self.windows!r}")
