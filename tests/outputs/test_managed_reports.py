"""What reports and pages say of managed positions, counted a second time."""

import io
from datetime import UTC, datetime

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._pages.market import load_market, stop_paths_of
from backtest_kit._reports.backtest import backtest_report, statistics_of
from backtest_kit._reports.managed import cost_warning
from backtest_kit._reports.run_folder import read_run, read_sensitivity
from command import run_here
from effort import examples
from markdown_tables import tables

START = datetime(2024, 1, 2, tzinfo=UTC)


def play(seed=3, *, trigger="wick", days=2, listen=None, goal=0.8, stop=None, limit=80, **how):
    """Longs and shorts in turn, one every 90 minutes; return the data and the market."""

    def get_signals(candles):
        turn = candles.timestamp // 60_000 // 90
        begins = np.diff(turn, prepend=-1) != 0
        side = np.where(begins, np.where(turn % 2, 1, -1), 0)
        return bk.Signals.bracket(side, goal, stop, limit, **how)

    with bk.Engine() as engine:
        engine.set_config(
            require_stop_loss=False,
            exit_trigger=trigger,
            min_take_profit_distance_percent=0.0,
            min_stop_loss_distance_percent=0.0,
            percent_fee=0.02,
            percent_slippage=0.01,
        )
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=seed))
        end = START.replace(day=2 + days)
        bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=20)
        if listen is not None:
            bk.listen_moved(listen)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
        data = bk.Backtest.get_data("X", strategy_name="s")
        return data, load_market(engine, engine.exchanges.get("synthetic"), data)


LADDERS = {"take_profits": ((0.2, 40), (0.3, 30)), "entries": ((0.15, 1.0), (0.3, 2.0))}
TRAILS = {"trailing_stop": 0.3, "trailing_activate_percent": 0.1, "breakeven_percent": 0.2}


def test_legs_are_a_table_that_adds_up_to_the_profits():
    data, _ = play(**LADDERS, **TRAILS)
    legs, trades = data.legs, data.trades
    assert len(legs) == sum(len(tick.legs) for tick in data.signals) == trades["fills"].sum()
    assert set(legs["kind"]) == {"entry", "exit"}
    assert legs.to_pandas()["timestamp"].dt.tz is not None
    for i, tick in enumerate(data.signals):
        of_trade = legs["trade"] == i
        entries, exits = (of_trade & (legs["kind"] == kind) for kind in ("entry", "exit"))
        value = legs["quantity"] * legs["price"]
        for rows, mean in ((entries, "price_open"), (exits, "price_close")):
            assert legs["share"][rows].sum() == pytest.approx(100)
            average = value[rows].sum() / legs["quantity"][rows].sum()
            assert average == pytest.approx(trades[mean][i])
        assert value[entries].sum() / tick.signal.price_open == pytest.approx(tick.cost)
        # the profit is the sum of what each exit made of its share, at average cost
        side = 1 if tick.signal.position == "long" else -1
        fee, slip = 0.02, 0.01 / 100
        paid = trades["price_open"][i] * (1 + side * slip)
        got = trades["price_close"][i] * (1 - side * slip)
        made = side * (got - paid) / paid * 100 - 2 * fee
        assert made == pytest.approx(tick.pnl.pnl_percentage, abs=1e-9)


def test_a_plain_trade_has_two_legs_and_no_row_more():
    data, _ = play(stop=0.6)
    assert (data.trades["fills"] == 2).all()
    assert len(data.legs) == 2 * len(data.signals)
    text = backtest_report(data, data.sensitivity())
    assert len(tables(text)[-1]) == len(data.signals) + 1
    assert "What each rule contributed" not in text
    assert "by cost" not in text
    assert " had no stop" not in text


def test_the_report_lists_fills_what_was_missing_and_what_rules_contributed():
    data, _ = play(**LADDERS, **TRAILS, goal=None)
    depends = data.sensitivity()
    text = backtest_report(data, depends)
    n = len(data.signals)
    first = text.split("\n\n")[1]
    assert f"Of {n} signals, {n} had no stop, {n} no target, 0 no end." in first
    statistics, reasons, rules, trades = tables(text)
    assert len(trades) == 1 + n + sum(len(tick.fills) for tick in data.signals)
    assert {len(row) for row in trades} == {11}
    assert [row[0] for row in statistics].index("Total profit by cost") == 5
    assert sum(int(row[1]) for row in reasons[1:]) == n
    assert {"trailing_stop", "breakeven"} <= {row[0] for row in reasons}
    shown = {row[0]: (row[3], row[5]) for row in rules[1:]}
    assert len(shown) == 4
    by_name = dict(zip(shown, depends.rules, strict=True))
    for name, cells in shown.items():
        row = by_name[name]
        expected = row.contributed, row.contributed_by_cost
        assert [float(cell.rstrip(" %")) for cell in cells] == pytest.approx(expected, abs=0.005)


def test_exits_of_rows_are_reasons_too():
    def columns():
        step = np.arange(3000)
        return step % 7 == 3, step % 11 == 5

    outs = columns()

    def get_signals(candles):
        i = (candles.timestamp // 60_000) % 3000
        side = np.where(i % 40 == 0, 1, 0)
        price = candles.close * 0.9985
        return bk.Signals(
            side, price * 1.01, price * 0.99, 60, price, exit_long=outs[0][i], exit_short=outs[1][i]
        )

    with bk.Engine():
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
        end = START.replace(day=4)
        bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=20)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
        data = bk.Backtest.get_data("X", strategy_name="s")
        schedule = bk.Schedule.get_data("X", strategy_name="s")
    exits = sum(tick.reason == "exit" for tick in data.cancelled)
    closed = sum(tick.close_reason == "closed" for tick in data.signals)
    assert exits > 5
    assert closed > 0
    assert schedule.reasons["exit"] == exits
    text = backtest_report(data)
    assert f"{exits} exit" in text
    assert ["closed", str(closed)] in [row[:2] for row in tables(text)[1]]


def test_one_total_that_is_a_profit_and_one_that_is_not_is_warned_of():
    data, _ = play(**LADDERS)
    small, large = data.signals[:2]

    def made(tick, profit, cost):
        pnl = msgspec.structs.replace(tick.pnl, pnl_percentage=profit)
        return msgspec.structs.replace(tick, pnl=pnl, cost=cost)

    span = data.since, data.until
    flattered = statistics_of([made(small, 3.0, 1.0), made(large, -1.0, 4.0)], span)
    assert (flattered.total_pnl, flattered.total_pnl_by_cost) == (2.0, -1.0)
    assert "2.00 %" in cost_warning(flattered)
    assert "-1.00 %" in cost_warning(flattered)
    for profit, cost in ((-0.5, 4.0), (-1.0, 1.0)):
        both = statistics_of([made(small, 3.0, 1.0), made(large, profit, cost)], span)
        assert cost_warning(both) == ""


@examples(15)
@given(
    seed=st.integers(0, 1000),
    trigger=st.sampled_from(["wick", "vwap"]),
    entries=st.booleans(),
    stop=st.sampled_from([None, 0.6]),
    breakeven=st.booleans(),
)
def test_the_way_of_a_stop_is_what_listeners_are_told_of(seed, trigger, entries, stop, breakeven):
    """Computed again at a few steps of each trade; told at each step of the run."""
    how = dict(TRAILS)
    if not breakeven:
        del how["breakeven_percent"]
    if entries:
        how |= LADDERS
    told = []
    data, market = play(seed, trigger=trigger, days=1, listen=told.append, stop=stop, **how)
    paths = {path.trade: path for path in stop_paths_of(data, market)}
    for i, tick in enumerate(data.signals):
        moves = [(m.timestamp, m.after) for m in told if m.signal.id == tick.signal.id]
        if i not in paths:
            assert not moves
            continue
        path = paths[i]
        drawn = [*zip(path.x, path.y, strict=True)]
        assert drawn.pop() == (tick.close_timestamp, path.y[-2])
        if stop is not None:
            assert drawn[0] == (tick.signal.pending_at, tick.signal.price_stop_loss) or (
                drawn[0] == moves[0]
            )
        assert [point for point in drawn if point in moves] == moves
        assert len(drawn) - len(moves) in (0, 1)


@pytest.mark.parametrize("trigger", ["wick", "vwap"])
def test_the_live_table_shows_levels_as_they_move(trigger):
    """The results of live runs are those of backtests: here it is shown one of these."""
    pytest.importorskip("rich")
    from rich.console import Console

    from backtest_kit.cli.live_table import LiveTable, transition_line

    def get_signals(candles):
        side = np.where(candles.timestamp // 60_000 % 90 == 0, 1, 0)
        return bk.Signals.bracket(side, 0.8, 0.6, 80, **LADDERS, **TRAILS)

    table, shown, checked = LiveTable(recorded=True), [], 0
    reasons = []

    def take_in(tick):
        nonlocal checked
        row = next(iter(table._rows.values()), None)
        if tick.action == "closed" and tick.fills:
            # the step of the close may have filled more before
            legs = [leg for leg in tick.legs if leg.timestamp < tick.close_timestamp]
            before = {"entry": 0.0, "exit": 0.0}
            for leg in legs:
                before[leg.kind] += leg.quantity
            if len(legs) == len(tick.legs) - 1:
                assert row.held.entered == pytest.approx(before["entry"])
                assert row.held.open == pytest.approx(tick.legs[-1].quantity)
                checked += 1
            if tick.close_reason == "trailing_stop" and trigger == "wick":
                reasons.append(row.held.stop == tick.legs[-1].price)
        table.update(tick)
        if tick.action in ("added", "partial", "moved"):
            table.update(tick)  # told again after a crash
            assert row.state == "active"
            if tick.action == "moved":
                assert row.held.stop == tick.after
            assert transition_line(tick).count("\n") == 0
        if tick.action == "active":
            shown.append((row.held.share_open, table.render(tick.timestamp)))

    with bk.Engine() as engine:
        engine.set_config(
            exit_trigger=trigger,
            min_take_profit_distance_percent=0.0,
            min_stop_loss_distance_percent=0.0,
            percent_fee=0.02,
            percent_slippage=0.01,
        )
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
        end = START.replace(day=4)
        bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=20)
        errors = []
        bk.listen_error(errors.append)
        bk.listen_signal_backtest(take_in)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    assert not errors
    assert checked > 5
    # one that opens beyond its stop closes at the open
    assert trigger == "vwap" or sum(reasons) > len(reasons) / 2 > 1
    part = next(view for share, view in shown if share < 90)
    for width, text in ((200, "% open"), (200, " / "), (120, "%")):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(part)
        assert text in console.export_text()


def test_what_manage_did_is_neither_replayed_nor_drawn():
    def manage(position, when):
        if position.minutes_held == 5:
            return bk.MoveStop(position.market_price * 0.998)
        return bk.Close(50, note="half") if position.minutes_held == 10 else None

    def get_signals(candles):
        side = np.where(candles.timestamp // 60_000 % 90 == 0, 1, 0)
        return bk.Signals.bracket(side, 0.8, 0.6, 80, trailing_stop=0.5)

    with bk.Engine():
        bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
        end = START.replace(day=4)
        bk.add_frame(frame_name="f", interval="1m", start_date=START, end_date=end)
        bk.add_strategy(
            strategy_name="s", interval="1m", get_signals=get_signals, warmup=20, manage=manage
        )
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
        data = bk.Backtest.get_data("X", strategy_name="s")
        depends = data.sensitivity()
    assert data.manages
    assert (depends.delays, depends.bounds, depends.rules) == ((), None, ())
    assert depends.buy_and_hold is not None
    text = backtest_report(data, depends)
    assert "Not known: the strategy decides while positions are open" in text
    assert "| manage |" in text
    assert msgspec.json.decode(msgspec.json.encode(data), type=type(data)) == data


FILE = """
from datetime import UTC, datetime

import numpy as np

import backtest_kit as bk

bk.set_config(require_stop_loss=False, min_take_profit_distance_percent=0.0)
bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
start, end = (datetime(2024, 1, day, tzinfo=UTC) for day in (2, 4))
bk.add_frame(frame_name="f", interval="1m", start_date=start, end_date=end)


def get_signals(candles):
    side = np.where(candles.timestamp // 60_000 % 90 == 0, 1, 0)
    how = {"take_profits": ((0.2, 40),), "entries": ((0.15, 1.0),), "trailing_stop": 0.4}
    return bk.Signals.bracket(side, 0.8, None, 80, **how)


bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=20)
"""


def test_the_command_prints_and_keeps_fills_and_contributions(tmp_path):
    (tmp_path / "s.py").write_text(FILE)
    done = run_here("backtest", "s.py", "--symbol", "X", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "dump" / "runs").iterdir()
    data, depends = read_run(folder), read_sensitivity(folder)
    n = len(data.signals)
    assert [row.rule for row in depends.rules] == ["trailing_stop", "take_profits", "entries"]
    for text in (f"Of {n} signals, {n} had no stop", "What each rule contributed", "entry_level"):
        assert text in done.stdout
    assert len(pq.read_table(folder / "legs.parquet")) == len(data.legs)
    shown = run_here("report", "last", cwd=tmp_path).stdout
    assert shown == (folder / "report.md").read_text()
    assert "## What each rule contributed" in shown
