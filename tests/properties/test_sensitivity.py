"""What a backtest's profit depends on: a replay of its proposals is the run again."""

from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._statistics.sensitivity import Sensitivity, break_even_slippage
from backtest_kit._values.time import to_datetime
from effort import examples
from markets import MINUTE, START, Case, cases, managed, market, script, spiked
from positions import as_mapping

PLAIN = Case(0, 60, "1m", "1m", 1.0, False, {})
LADDERS = st.fixed_dictionaries(
    {
        "take_profits": st.sampled_from(
            [(), ((0.5, 25.0), (1.0, 25.0)), ((0.5, 50.0), (0.9, 50.0))]
        ),
        "stop_losses": st.sampled_from([(), (), ((0.3, 50.0),)]),
        "entries": st.sampled_from([(), (), ((0.2, 1.0),)]),
    }
)


def played(case, rows, get_signal=None, **changes):
    """Run a case, with other settings or another strategy; return its record and figures."""
    proposals = script(case.seed, case.ask_rate, case.coarse)

    def of_script(symbol, when):
        return proposals(int(when.timestamp() * 1000), bk.average_price(symbol))

    get_signal = get_signal or of_script

    with bk.Engine() as engine:
        engine.set_config(**(case.config | changes))
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(START),
            end_date=to_datetime(START) + timedelta(minutes=case.minutes * 3 // 4),
        )
        bk.add_strategy(strategy_name="s", interval=case.interval, get_signal=get_signal)
        try:
            bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        except (bk.ConfigError, bk.DataRangeError):  # nothing is asked in this frame
            assume(False)
        record = engine.records.select(mode="backtest")[0]
        return record, bk.Backtest.get_data("X", strategy_name="s").sensitivity()


@examples(40)
@given(cases)
def test_a_replay_with_nothing_changed_is_the_run(case):
    record, found = played(case, market(case.seed, case.minutes, coarse=case.coarse))
    total = sum(tick.pnl.pnl_percentage for tick in record.closed)
    same = found.delays[0]
    assert (same.minutes, same.trades, same.dropped) == (0, len(record.closed), 0)
    assert same.total_pnl == pytest.approx(total, abs=1e-9)
    rules = {"stop_loss_first": found.bounds.pessimistic}
    rules["take_profit_first"] = found.bounds.optimistic
    assert rules[case.config["ambiguous_candle"]] == pytest.approx(total, abs=1e-9)
    assert found.bounds.pessimistic <= found.bounds.optimistic + 1e-9
    assert found.bounds.ambiguous == sum(tick.ambiguous for tick in record.closed)


@examples(40)
@given(cases, LADDERS)
def test_a_replay_of_managed_positions_is_the_run(case, ladders):
    rows = spiked(market(case.seed, case.minutes, coarse=case.coarse), case.seed)
    proposals = managed(script(case.seed, case.ask_rate, case.coarse), case.seed)

    def get_signal(symbol, when):
        found = proposals(int(when.timestamp() * 1000), bk.average_price(symbol))
        return found and as_mapping(found | ladders)

    record, found = played(case, rows, get_signal, require_stop_loss=False)
    total = sum(tick.pnl.pnl_percentage for tick in record.closed)
    same = found.delays[0]
    assert (same.minutes, same.trades, same.dropped) == (0, len(record.closed), 0)
    assert same.total_pnl == pytest.approx(total, abs=1e-9)
    assert found.total_pnl == pytest.approx(total, abs=1e-9)


@examples(20)
@given(st.integers(0, 2**16))
def test_a_replay_ends_what_rows_ended(seed):
    rng = np.random.default_rng(seed)
    rows = market(seed, 400)
    sides = rng.choice([-1, 0, 0, 0, 1], 400)
    exits = rng.random((2, 400)) < 0.1

    def get_signals(candles):
        i = (candles.timestamp - START) // MINUTE
        columns = {"exit_long": exits[0][i], "exit_short": exits[1][i]}
        return bk.Signals.bracket(sides[i], 3.0, 3.0, 90, **columns)

    with bk.Engine():
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        span = {"start_date": to_datetime(START), "end_date": to_datetime(START + 300 * MINUTE)}
        bk.add_frame(frame_name="f", interval="1m", **span)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=1)
        closed = bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        found = bk.Backtest.get_data("X", strategy_name="s").sensitivity()
    assert any(tick.close_reason == "closed" for tick in closed)
    same = found.delays[0]
    assert (same.trades, same.dropped) == (len(closed), 0)
    total = sum(tick.pnl.pnl_percentage for tick in closed)
    assert same.total_pnl == pytest.approx(total, abs=1e-9)


RULES = {
    "trailing_stop": ("trailing_stop", "trailing_activate_percent"),
    "breakeven": ("breakeven_percent",),
    "take_profits": ("take_profits",),
    "stop_losses": ("stop_losses",),
    "entries": ("entries",),
    "exits": ("exit_long", "exit_short"),
}


def spaced(seed, rules, *, wick):
    """A run whose trades never outlive the time between two signals, with some rules."""
    rng = np.random.default_rng(seed)
    rows = market(seed, 900, gaps=False)
    every = 45
    sides = np.where(np.arange(900) % every == 7, rng.choice([-1, 1], 900), 0)
    exits = (rng.random((2, 900)) < 0.04) & (sides == 0)  # a row never opens what it closes
    how = {
        "trailing_stop": float(rng.choice([0.3, 0.6])),
        "trailing_activate_percent": 0.1,
        "breakeven_percent": 0.4,
        "take_profits": ((0.3, 50.0), (0.6, 25.0)),
        "stop_losses": ((0.4, 50.0),),
        "entries": ((0.2, 1.0), (0.5, 2.0)),
    }

    def get_signals(candles):
        i = (candles.timestamp - START) // MINUTE
        all_of_it = how | {"exit_long": exits[0][i], "exit_short": exits[1][i]}
        some = {name: all_of_it[name] for rule in rules for name in RULES[rule]}
        return bk.Signals.bracket(sides[i], 1.2, 0.9, every - 10, **some)

    with bk.Engine() as engine:
        engine.set_config(
            exit_trigger="wick" if wick else "vwap",
            min_take_profit_distance_percent=0.0,
            min_stop_loss_distance_percent=0.0,
            percent_fee=0.02,
            percent_slippage=0.01,
        )
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        span = {"start_date": to_datetime(START), "end_date": to_datetime(START + 800 * MINUTE)}
        bk.add_frame(frame_name="f", interval="1m", **span)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=1)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        return bk.Backtest.get_data("X", strategy_name="s")


@examples(30)
@given(st.integers(0, 2**16), st.sets(st.sampled_from([*RULES]), min_size=1), st.booleans())
def test_what_a_rule_contributed_is_what_a_run_without_it_lacks(seed, used, wick):
    data = spaced(seed, used, wick=wick)
    found = data.sensitivity()
    assert not found.not_replayed
    shown = {row.rule: row for row in found.rules}
    closed_by_row = any(tick.close_reason == "closed" for tick in data.signals)
    assert {*shown} == used - (set() if closed_by_row else {"exits"})

    def both(data):
        s = data.statistics
        by_cost = s.total_pnl if s.total_pnl_by_cost is None else s.total_pnl_by_cost
        return np.array((s.total_pnl, by_cost))

    for rule, row in shown.items():
        if "exits" in used and rule != "exits":
            continue  # a trade that lasts longer meets rows that ended nothing in the run
        other = spaced(seed, used - {rule}, wick=wick)
        assert row.trades == other.statistics.total_signals
        without = row.total_pnl, row.total_pnl_by_cost
        np.testing.assert_allclose(without, both(other), atol=1e-9)
        lacks = both(data) - both(other)
        np.testing.assert_allclose((row.contributed, row.contributed_by_cost), lacks, atol=1e-9)


def test_a_run_that_its_signals_do_not_give_again_is_not_replayed():
    data = spaced(1, {"entries", "exits"}, wick=True)
    assert [row.rule for row in data.sensitivity().rules] == ["entries", "exits"]
    last = data.signals[-1]
    earlier = msgspec.structs.replace(last, close_timestamp=last.close_timestamp - MINUTE)
    changed = msgspec.structs.replace(data, signals=(*data.signals[:-1], earlier))
    vars(changed).update(vars(data))
    found = changed.sensitivity()
    assert (found.delays, found.bounds, found.rules) == ((), None, ())
    assert "acted" in found.not_replayed


def test_ladders_that_differ_are_not_replayed():
    answers = iter([{"take_profits": ((1.0, 50.0),)}, {}])

    def get_signal(symbol, when):
        how = next(answers, None)
        levels = {"price_take_profit": 103.0, "price_stop_loss": 90.0, "minute_estimated_time": 2}
        return None if how is None else {"position": "long", **levels, **how}

    rows = [(START + i * MINUTE, 100.0, 100.0, 100.0, 100.0, 1.0) for i in range(60)]
    record, found = played(PLAIN, rows, get_signal)
    assert len(record.closed) == 2
    assert (found.delays, found.bounds) == ((), None)


@examples(20)
@given(cases, st.sampled_from([0.0, 0.03, 0.5]))
def test_slippage_changes_profits_as_a_run_with_it_does(case, slippage):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    _, found = played(case, rows)
    _, again = played(case, rows, percent_slippage=slippage)
    assert again.total_before_costs == pytest.approx(found.total_before_costs, abs=1e-9)
    known = np.array([(p.percent_slippage, p.total_pnl) for p in found.slippage])
    here = np.interp(slippage, *known.T)
    if slippage <= found.slippage[-1].percent_slippage:  # nearly a straight line
        assert here == pytest.approx(again.total_pnl, abs=1e-3 * (1 + abs(again.total_pnl)))
    if found.break_even_slippage is not None:
        exact = {"percent_slippage": found.break_even_slippage}
        assert played(case, rows, **exact)[1].total_pnl == pytest.approx(0, abs=1e-6)


def test_a_later_entry_is_a_run_that_is_asked_later():
    rows = [
        (START + i * MINUTE, p := 100 + (i // 40) % 2 * 3 + i * 0.01, p + 0.2, p - 0.2, p, 1.0)
        for i in range(600)
    ]

    def total(later):
        def get_signal(symbol, when):
            minute = int(when.timestamp()) // 60 - START // MINUTE
            if minute % 80 != 20 + later:
                return None
            level = rows[minute - later - 1][4]
            levels = {"price_take_profit": level * 1.02, "price_stop_loss": level * 0.95}
            return bk.Signal(position="long", minute_estimated_time=60, **levels)

        with bk.Engine() as engine:
            engine.set_config(exit_trigger="wick")
            bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
            span = {"start_date": to_datetime(START), "end_date": to_datetime(START + 490 * MINUTE)}
            bk.add_frame(frame_name="f", interval="1m", **span)
            bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
            names = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}
            bk.Backtest.run_sync("X", **names)
            record = engine.records.select(mode="backtest")[0]
            return record, bk.Backtest.get_data("X", strategy_name="s").sensitivity()

    record, found = total(0)
    assert len(record.closed) > 4
    totals = {point.minutes: point.total_pnl for point in found.delays}
    for later in (1, 3, 10):
        assert totals[later] == pytest.approx(total(later)[1].total_pnl, abs=1e-9)
    assert totals[10] != totals[0]
    profits = sorted((t.pnl.pnl_percentage for t in record.closed), reverse=True)
    assert found.best == pytest.approx(sum(profits[:5]))
    assert found.without_best == pytest.approx(sum(profits[5:]))
    grown = np.prod([1 + p / 100 for p in profits]) * 100 - 100
    assert found.compounded == pytest.approx(grown)
    assert found.buy_and_hold == pytest.approx((rows[489][4] / rows[0][1] - 1) * 100)
    assert msgspec.json.decode(found.to_json(), type=Sensitivity) == found


def test_what_earned_most_of_the_price_is_tested_by_slippages_that_leave_one():
    """As a short over a split of the shares: half of the price may be lost to break even."""
    closes = [100.0] * 250 + [36.0] * 50
    rows = [(START + i * MINUTE, p, p, p, p, 1.0) for i, p in enumerate(closes)]

    def get_signals(candles):
        side = -(candles.timestamp == START + 230 * MINUTE).astype(np.int8)
        return bk.Signals.bracket(side, 99, 5, 40)

    found = bk.backtest(np.array(rows), get_signals, interval="1m").sensitivity()
    assert found.break_even_slippage > 45
    slippages = [point.percent_slippage for point in found.slippage]
    assert max(slippages) > found.break_even_slippage
    assert max(slippages) < 100
    assert np.isfinite([point.total_pnl for point in found.slippage]).all()


def test_break_even_is_not_defined_for_a_loser():
    assert break_even_slippage(lambda s: -1 - s) is None
    assert break_even_slippage(lambda s: 1.0) is None
    assert break_even_slippage(lambda s: 3 - 2 * s) == pytest.approx(1.5)
