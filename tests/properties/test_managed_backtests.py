"""Backtests of managed positions, and of exit columns: steps, fast-forward and the reference."""

import threading
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._arrays import simulation
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._values.time import INTERVALS, to_datetime
from markets import MINUTE, START, Case, cases, managed, market, script, spiked
from positions import as_mapping, facts_of

Shifted = namedtuple("Shifted", (*Case._fields, "shift"))
settings = st.fixed_dictionaries(
    {
        "require_stop_loss": st.booleans(),
        "max_entries": st.sampled_from([2, 8]),
        "suspicious_candle": st.sampled_from(["hold", "accept"]),
    }
)


TOLD = (
    *("on_open", "on_schedule", "on_cancel", "on_close", "on_partial", "on_add"),
    *("on_partial_profit", "on_partial_loss"),
)


def play(case, rows, *, step_by_step, length=0.75, **strategy):
    """Run a case on a new engine; return what callbacks were told, as the reference writes it."""
    told = []
    names = (*TOLD, "on_move") if step_by_step else TOLD
    with bk.Engine() as engine:
        engine.set_config(**case.config)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(START),
            end_date=to_datetime(START + int(case.minutes * length) * MINUTE),
        )
        bk.add_strategy(
            strategy_name="s",
            interval=case.interval,
            callbacks=dict.fromkeys(names, told.append),
            **strategy,
        )
        try:
            bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        except (bk.ConfigError, bk.DataRangeError):  # as in the tests of plain signals
            return None
        record = engine.records.select(mode="backtest")[0]
        unexpected = [
            k
            for k in record.error_kinds
            if not any(kind in k[1] for kind in ("SignalError", "DataRange", "SuspiciousCandle"))
        ]
        assert not unexpected, unexpected
    return [*facts_of(told)]


def candles(case):
    """The market of a case; half of those that say what to do with them have far-off prices."""
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    return spiked(rows, case.seed) if "suspicious_candle" in case.config and case.seed % 2 else rows


def without_moves(facts):
    return [fact for fact in facts if fact[0] != "moved"]


def compare(case, more, *, step_by_step):
    case = case._replace(config=case.config | more)
    rows = candles(case)
    proposals = managed(script(case.seed, case.ask_rate, case.coarse), case.seed)

    def get_signal(symbol, when):
        return as_mapping(proposals(int(when.timestamp() * 1000), bk.average_price(symbol)))

    found = play(case, rows, step_by_step=step_by_step, get_signal=get_signal)
    if found is None:
        return
    expected = reference.backtest(
        rows,
        START,
        START + int(case.minutes * 0.75) * MINUTE,
        INTERVALS[case.frame],
        INTERVALS[case.interval],
        proposals,
        case.config,
    )
    assert found == (expected if step_by_step else without_moves(expected))


@given(cases, settings)
def test_fast_forward_of_managed_positions_equals_the_reference(case, more):
    compare(case, more, step_by_step=False)


@given(cases, settings)
def test_steps_of_managed_positions_equal_the_reference(case, more):
    compare(case, more, step_by_step=True)


def rows_of_signals(case, interval):
    """Columns by the close of a candle: what an array strategy says, and the reference's script.

    They depend on the time alone, so that windows say the same.
    """

    def columns(closes_at):
        rng = np.random.default_rng([case.seed, 5])
        draws = rng.random((9, 997))[:, (closes_at // interval) % 997]
        side = np.where(draws[0] < 0.5, 1, -1) * (draws[1] < case.ask_rate)
        often = 0.1 + 0.5 * rng.random()
        return {
            "side": side,
            "up": np.where(draws[2] < 0.3, np.nan, 0.6 + 2 * draws[2]),
            "down": np.where(draws[3] < 0.2, np.nan, 0.6 + 2 * draws[3]),
            "minutes": np.where(draws[4] < 0.3, np.nan, np.floor(1 + 100 * draws[4] ** 3)),
            "away": np.where(draws[5] < 0.4, np.nan, 2 * draws[5] - 1),
            "trailing": np.where(draws[6] < 0.5, np.nan, draws[6]),
            "exit_long": draws[7] < often,
            "exit_short": draws[8] < often,
        }

    return columns


def brackets(said, levels, trails, exits):
    """The signals of an array strategy that says this."""
    how = dict(levels)
    if trails:
        how |= {"trailing_stop": said["trailing"], "trailing_activate_percent": 0.2}
    if exits:
        how |= {"exit_long": said["exit_long"], "exit_short": said["exit_short"]}
    return bk.Signals.bracket(said["side"], said["up"], said["down"], said["minutes"], **how)


LEVELS = st.fixed_dictionaries(
    {
        "take_profits": st.sampled_from([(), (), ((0.5, 25.0), (0.8, 75.0))]),
        "stop_losses": st.sampled_from([(), (), ((0.5, 60.0),)]),
        "entries": st.sampled_from([(), (), ((0.2, 1.0), (0.5, 2.0))]),
    }
)


def tabulated(case, rows, *, compiled, **strategy):
    """Run a case with nobody listening, in arrays; return the closes, the milestones, the ends."""
    with bk.Engine() as engine, pytest.MonkeyPatch.context() as patch:
        if compiled:
            pytest.importorskip("numba", reason="the kernel needs Numba")
            simulation.compile_kernel()
        else:
            patch.setattr(simulation, "kernel_ready", threading.Event())
        used = []
        original = FrameDriver.tabulate

        async def watched(driver, **how):
            used.append(await original(driver, **how))
            return used[-1]

        patch.setattr(FrameDriver, "tabulate", watched)
        engine.set_config(**case.config)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(START + case.shift * MINUTE),
            end_date=to_datetime(START + int(case.minutes * 0.75) * MINUTE),
        )
        bk.add_strategy(strategy_name="s", interval=case.interval, **strategy)
        try:
            closed = bk.Backtest.run_sync(
                "X", strategy_name="s", exchange_name="frame", frame_name="f"
            )
        except (bk.ConfigError, bk.DataRangeError):
            return None
        record = engine.records.select(mode="backtest")[0]
        cancelled = [waited.cancelled for waited in record.waited if waited.cancelled is not None]
        facts = [*facts_of(closed)], [*facts_of(record.partials)], [*facts_of(cancelled)]
        assert all(bk.tick_from_json(tick.to_json()) == tick for tick in closed)
        return *facts, record.calls - record.warming, used[0]


def compare_arrays(
    case, more, levels, trails, exits, *, step_by_step=False, one_by_one=False, table=None
):
    config = case.config | more
    if case.interval not in ("1m", "3m", "5m", "15m"):
        case = case._replace(interval="15m")
    case, interval = case._replace(config=config), INTERVALS[case.interval]
    columns = rows_of_signals(case, interval)
    rows = candles(case)
    warmup = 2

    def get_signals(candles):
        if one_by_one and len(candles) > warmup:
            raise RuntimeError("only a window at a time")
        return brackets(columns(candles.timestamp + interval), levels, trails, exits)

    def proposals(t, price):
        there = columns(np.array([t // interval * interval]))
        said = {name: column[0] for name, column in there.items()}
        side, market_price = said["side"], prices[t]
        if not side or not START + warmup * interval <= t // interval * interval <= known_until:
            return None
        up, down, minutes = said["up"], said["down"], said["minutes"]
        proposal = {
            "position": "long" if side > 0 else "short",
            "price_take_profit": None if np.isnan(up) else market_price * (1 + side * up / 100),
            "price_stop_loss": None if np.isnan(down) else market_price * (1 - side * down / 100),
            "minute_estimated_time": None if np.isnan(minutes) else int(minutes),
        }
        if trails and not np.isnan(said["trailing"]):
            proposal["trailing_stop"] = (said["trailing"], 0.2)
        return proposal | {name: pairs for name, pairs in levels.items() if pairs}

    # there are candles up to the last that has closed and is no gap; behind it nothing is said
    whole_candles = [row[0] for row in rows if row[0] // interval < rows[-1][0] // interval]
    if (rows[-1][0] + MINUTE) % interval == 0:
        whole_candles.append(rows[-1][0])
    known_until = (max(whole_candles, default=0) // interval + 1) * interval

    def said_exits(t):
        if t > known_until:
            return False, False
        said = columns(np.array([t]))
        return bool(said["exit_long"][0]), bool(said["exit_short"][0])

    whole = reference.fill_gaps(rows)
    if config.get("suspicious_candle", "hold") == "hold":
        whole = reference.without(whole, reference.held(rows, whole))
    count = config["avg_price_candles_count"]
    prices = {
        row[0] + MINUTE: row[4]
        if config["fill_price"] == "market"
        else reference.average(whole[max(k + 1 - count, 0) : k + 1], count)
        for k, row in enumerate(whole)
    }
    if table is not None:
        # behind the warm-up; most frames lie inside the data
        case = case._replace(config=config)
        shift = warmup * interval // MINUTE + 12
        found = tabulated(
            Shifted(*case, shift), rows, compiled=table, get_signals=get_signals, warmup=warmup
        )
    else:
        shift = 0
        found = play(case, rows, step_by_step=step_by_step, get_signals=get_signals, warmup=warmup)
    if found is None:
        return None
    expected = reference.backtest(
        rows,
        START + shift * MINUTE,
        START + int(case.minutes * 0.75) * MINUTE,
        INTERVALS[case.frame],
        interval,
        proposals,
        config,
        exits=said_exits if exits else None,
    )
    if table is not None:
        kinds = ("closed", "partial", "cancelled")
        parts = tuple([fact for fact in expected if fact[0] == kind] for kind in kinds)
        assert found[:3] == parts
        return found
    assert found == (expected if step_by_step else without_moves(expected))
    return found


#: A row says exit while a trailing stop follows the best price, before that stop is hit.
EXIT_FIRST = Case(
    238,
    148,
    "1m",
    "1m",
    0.02,
    False,
    {
        "exit_trigger": "wick",
        "fill_price": "market",
        "ask_at": "close",
        "ambiguous_candle": "stop_loss_first",
        "schedule_await_minutes": 1,
        "avg_price_candles_count": 1,
        "min_take_profit_distance_percent": 0.0,
        "min_stop_loss_distance_percent": 0.0,
        "max_stop_loss_distance_percent": 0.0,
        "max_signal_lifetime_minutes": 120,
        "percent_slippage": 0.0,
        "percent_fee": 0.0,
    },
)
NO_LEVELS = {"take_profits": (), "stop_losses": (), "entries": ()}


@given(cases, settings, LEVELS, st.booleans(), st.booleans())
@example(EXIT_FIRST, {"require_stop_loss": False, "max_entries": 8}, NO_LEVELS, True, True)
def test_fast_forward_of_array_strategies_equals_the_reference(case, more, levels, trails, exits):
    compare_arrays(case, more, levels, trails, exits, step_by_step=False)


@given(cases, settings, LEVELS, st.booleans(), st.booleans())
def test_steps_of_array_strategies_equal_the_reference(case, more, levels, trails, exits):
    compare_arrays(case, more, levels, trails, exits, step_by_step=True)


@given(cases, settings, LEVELS, st.booleans(), st.booleans())
def test_array_strategies_that_are_asked_by_windows_equal_the_reference(
    case, more, levels, trails, exits
):
    compare_arrays(case, more, levels, trails, exits, step_by_step=False, one_by_one=True)


@given(cases, settings, LEVELS, st.booleans(), st.booleans())
def test_the_kernel_equals_the_reference(case, more, levels, trails, exits):
    compare_arrays(case, more, levels, trails, exits, table=True)


@given(cases, settings, LEVELS, st.booleans(), st.booleans())
def test_arrays_in_plain_python_equal_the_reference(case, more, levels, trails, exits):
    compare_arrays(case, more, levels, trails, exits, table=False)


def test_arrays_serve_managed_strategies():
    """The two tests above compare tables, not the steps that a run falls back to."""
    config = {
        "exit_trigger": "wick",
        "avg_price_candles_count": 2,
        "fill_price": "market",
        "ask_at": "elapsed",
        "ambiguous_candle": "stop_loss_first",
        "schedule_await_minutes": 30,
        "min_take_profit_distance_percent": 0.0,
        "min_stop_loss_distance_percent": 0.0,
        "max_stop_loss_distance_percent": 0.0,
        "percent_slippage": 0.0,
        "percent_fee": 0.0,
    }
    more = {"require_stop_loss": False, "max_entries": 8}
    levels = {"take_profits": ((0.5, 25.0),), "stop_losses": (), "entries": ((0.2, 1.0),)}
    closes = []
    for seed, limit in ((1, 0), (2, 0), (3, 1440)):
        case = Case(
            seed, 600, "1m", "3m", 0.3, False, config | {"max_signal_lifetime_minutes": limit}
        )
        found = compare_arrays(case, more, levels, True, True, table=True)
        assert found[-1], "a table served"
        closes += found[0]
    reasons = {close[2] for close in closes}
    assert {"closed", "take_profit", "trailing_stop"} <= reasons
    assert any(len(close[-1]) > 2 for close in closes)


@pytest.mark.parametrize("callbacks", [None, {"on_close": str}])
def test_a_milestone_is_measured_from_the_effective_entry(callbacks):
    """8 percent above the first entry, and more than 10 above the mean of two; in a table, too."""
    prices = [100.0, 100.0, 100.0, 96.0, 94.0, 100.0, 108.0, 100.0, 100.0, 100.0]
    rows = [[START + i * MINUTE, p, p, p, p, 0.0] for i, p in enumerate(prices * 3)]

    def get_signals(candles):
        side = (candles.timestamp - START) // MINUTE == 2
        return bk.Signals.bracket(side, 50.0, 15.0, 20, entries=((5.0, 1.0),))

    with bk.Engine() as engine:
        engine.set_config(avg_price_candles_count=1, exit_trigger="wick")
        bk.add_exchange(bk.exchanges.FrameExchange(rows))
        span = {"start_date": to_datetime(START + 2 * MINUTE)}
        span["end_date"] = to_datetime(START + 9 * MINUTE)
        bk.add_frame(frame_name="f", interval="1m", **span)
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signals=get_signals,
            warmup=1,
            callbacks=callbacks,
        )
        (tick,) = bk.Backtest.run_sync(
            "X", strategy_name="s", exchange_name="frame", frame_name="f"
        )
        record = engine.records.select(mode="backtest")[0]
    assert (record.table is None) == (callbacks is not None)
    assert tick.cost == 2.0
    assert [(m.level, (m.timestamp - START) // MINUTE) for m in record.partials] == [(10, 7)]
