"""Draws of random entries: the profits of trades like given ones, entered at any other time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._arrays import layout
from backtest_kit._arrays import random_entries as plain
from backtest_kit._arrays.brackets import Brackets
from backtest_kit._arrays.job import SignalRows, job, work_of
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.paid_account import nobody
from backtest_kit._arrays.random_entries import Entries, Row
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._arrays.simulation import announce
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.management import flat
from backtest_kit._rules.profit import ZERO_PROFIT, profit
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.time import MINUTE

#: An interval so long that every step is in the same row of signals.
_ONE_ROW: Final = 2**62
#: Set once what draws is compiled or loaded in this process.
draws_ready: Final = threading.Event()
_PERCENTS: Final = ("trailing", "activation", "breakeven")


class Draws(NamedTuple):
    """The trades of each draw, in the order of the given ones: shape (draws, N).

    Profit in percent after costs, NaN where nothing could be entered; times in milliseconds.
    """

    r: Floats
    opened_at: Ints
    closed_at: Ints


def draw_entries(
    bars: Bars,
    timeline: range,
    config: Config,
    brackets: Brackets,
    held: Floats,
    draws: int,
    seed: tuple[int, ...],
) -> Draws:
    """Return draws of random entries with the brackets of given trades; `held` ms is how long each.

    The bars reach from the frame's first step to the end of the longest life after its last, or to
    the end of the data. Sides, brackets and the number of trades are in each draw as given.
    """
    columns, row, rules = _market(bars, timeline, config, brackets)
    first = max(0, -((bars.first - timeline[0]) // bars.step))
    last = min((timeline[-1] - bars.first) // bars.step, len(columns.fill) - 1)
    steps = np.arange(first, last + 1)
    if bars.next_open is not None:
        steps = steps[bars.next_open[steps] == steps]
    priced = np.isfinite(columns.price[steps]) & np.isfinite(columns.fill[steps])
    places = read_only(steps[priced])
    if not len(places) or not brackets.count:
        none = np.full((draws, brackets.count), -1)
        return Draws(np.full(none.shape, np.nan), none, none)
    rules = rules._replace(frames=int(places[-1]) + 1, until=int(places[-1]) + 1)
    given = _entries(brackets, held / bars.step, places, draws, seed)
    compiled = draws_ready.is_set()
    work = work_of(_with_longest(columns, given), compiled=compiled)
    state = np.zeros(8, dtype=np.int64)
    room = state, np.empty((8, 1), dtype=np.int64), np.empty((7, 1))
    found = np.empty((2, draws, brackets.count), dtype=np.int64)
    prices = np.empty((2, draws, brackets.count))
    enter(compiled=compiled)(columns, rules, work, row, given, room, nobody(), found, prices)
    return _profits(bars, config, given, found, prices)


def compile_draws(logger: logging.Logger) -> None:
    """Compile what draws, once a process, where the kernel is loaded; what takes long is logged."""
    if not kernel_ready.is_set() or draws_ready.is_set():
        return
    from backtest_kit._arrays import kernel

    announce(kernel.enter_at_random, logger)
    ones = read_only(np.ones(4))
    bars = Bars(MINUTE, ones, ones, ones, ones, ones)
    brackets = Brackets.of([1], {})
    line = range(MINUTE, 3 * MINUTE, MINUTE)
    draws_ready.set()
    draw_entries(bars, line, Config(base_interval="1m"), brackets, np.ones(1), 1, (0,))


def enter(*, compiled: bool) -> Callable[..., None]:
    """Return `enter_at_random`, compiled if it is to be."""
    if not compiled:
        return plain.enter_at_random
    from backtest_kit._arrays import kernel

    return kernel.enter_at_random


def _market(
    bars: Bars, timeline: range, config: Config, brackets: Brackets
) -> tuple[layout.Columns, Row, layout.Rules]:
    """Return the market with one row of signals, which is asked at every step."""
    signals = Signals.bracket(np.ones(1))
    rows = SignalRows(signals, 0, config.base_interval, timeline, config)
    columns, rules = job(bars, rows, 1)
    row = Row(np.ones(1, dtype=np.int8), *(np.empty(1) for _ in range(6)))
    columns = columns._replace(**{name: read_only(part) for name, part in row._asdict().items()})
    managed = bool(brackets.which) or any(name in brackets.numbers for name in _PERCENTS)
    rules = rules._replace(
        relative=True,
        start=0,
        step=1,
        hop=1,
        phase=0,
        rows=0,
        rest=1,
        interval=_ONE_ROW,
        base=0,
        first_row=0,
        free=0,
        managed=managed,
        # distances, which are kept in single precision, were checked when the trades were proposed
        limits=rules.limits._replace(least_take_profit=0, least_stop_loss=0, most_stop_loss=0),
    )
    return columns, row, rules


def _entries(
    brackets: Brackets, held: Floats, places: Ints, draws: int, seed: tuple[int, ...]
) -> Entries:
    rng = np.random.default_rng(seed)
    count = brackets.count
    order = rng.random((draws, count)).argsort(axis=1, kind="stable")
    # of uniform points on what is left, for each trade still to come, the first
    parts = 1.0 - rng.random((draws, count)) ** (1.0 / np.arange(count, 0, -1))
    begin = rng.integers(0, len(places), draws)
    flats = [[np.array(flat(levels)) for levels in ladder] for ladder in brackets.ladders]
    sizes = np.array([[len(levels) for levels in ladder] for ladder in flats])
    offsets = np.concatenate((np.zeros((1, 3), dtype=np.int64), np.cumsum(sizes, axis=0)))
    profits, losses, entries = (
        read_only(np.concatenate([ladder[i] for ladder in flats]).astype(np.float64))
        for i in range(3)
    )
    return Entries(
        read_only(brackets.side),
        read_only(brackets.column("target")),
        read_only(brackets.column("stop")),
        read_only(brackets.column("minutes")),
        read_only(brackets.column("trailing")),
        read_only(brackets.column("activation")),
        read_only(brackets.column("breakeven")),
        read_only(held),
        read_only(brackets.ladder),
        read_only(offsets),
        profits,
        losses,
        entries,
        read_only(order),
        read_only(parts),
        read_only(begin),
        places,
    )


def _with_longest(columns: layout.Columns, given: Entries) -> layout.Columns:
    """Return columns with as many levels as any trade has: what there has to be room for."""
    most = np.diff(given.offsets, axis=0).max(axis=0).tolist()
    profits, losses, entries = (np.zeros(size) for size in most)
    return columns._replace(profits=profits, losses=losses, entries=entries)


def _profits(bars: Bars, config: Config, given: Entries, found: Ints, prices: Floats) -> Draws:
    costs = config.percent_fee, config.percent_slippage
    bought, sold = prices
    long, short = (profit(name, bought, sold, *costs) for name in ("long", "short"))
    r = np.where(given.side > 0, long, short)
    r[(given.breakeven > 0) & (np.abs(r) <= ZERO_PROFIT)] = 0.0
    times = np.where(found < 0, -1, bars.first + found * bars.step)
    return Draws(r, times[plain.OPENED], times[plain.CLOSED_AT])
