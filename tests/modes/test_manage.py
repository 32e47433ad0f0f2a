"""Strategies that are asked while their position is open: how they are written, what goes wrong.

What comes of each answer is compared with the reference in tests/properties.
"""

import itertools
from datetime import timedelta

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START, market

RUN = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}
LEVELS = {"price_take_profit": 1e6, "price_stop_loss": None, "minute_estimated_time": 60}


@pytest.fixture(autouse=True)
def quiet_market(engine):
    """A market of ten hours, and signals that nothing but an hour ends."""
    engine.set_config(require_stop_loss=False, percent_fee=0.0, percent_slippage=0.0)
    rows = market(3, 600, gaps=False, quiet=False)
    bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=to_datetime(START + 60 * MINUTE),
        end_date=to_datetime(START + 480 * MINUTE),
    )


def get_signal(symbol, when):
    return bk.Signal(position="long", **LEVELS)


def run(**fields):
    bk.add_strategy(strategy_name="s", interval="1h", replace=True, **fields)
    return [*bk.Backtest.run_sync("X", **RUN)]


def minutes(result):
    return (result.close_timestamp - result.signal.pending_at) // MINUTE


def test_it_is_written_as_a_function_beside_the_other():
    def manage(position, when):
        assert position.minutes_held == (when - to_datetime(position.signal.pending_at)) / (
            timedelta(minutes=1)
        )
        return bk.Close(note="long enough") if position.minutes_held >= 25 else None

    bk.strategy("s", interval="1h", manage=manage, manage_interval="5m")(get_signal)
    closed = bk.Backtest.run_sync("X", **RUN)
    assert len(closed) == 8
    assert {(r.close_reason, r.note, minutes(r)) for r in closed} == {("closed", "long enough", 25)}
    assert bk.tick_from_json(closed[0].to_json()) == closed[0]


def test_an_object_has_it_as_a_method_and_begins_each_run_clean():
    @bk.strategy("s", interval="1h", manage_interval="15m")
    class Counting:
        def __init__(self):
            self.asked = 0

        def get_signal(self, symbol, when):
            return get_signal(symbol, when)

        async def manage(self, position, when):
            self.asked += 1
            return bk.Close(50, note=str(self.asked)) if self.asked <= 2 else None

    for _ in range(2):
        first, second, *_ = bk.Backtest.run_sync("X", **RUN)
        assert [leg.reason for leg in first.legs] == ["signal", "manage", "manage", "time_expired"]
        assert [leg.quantity for leg in first.legs] == [1.0, 0.5, 0.25, 0.25]
        assert len(second.legs) == 2


def test_it_reads_candles_that_are_not_loaded_yet():
    seen = []

    def manage(position, when):
        seen.append(bk.candles("Y", "15m", 2).close[-1] == bk.candles("X", "15m", 2).close[-1])

    run(manage=manage, get_signal=get_signal, manage_interval="15m")
    assert seen
    assert all(seen)


@pytest.mark.parametrize(("ask_at", "after_expiry"), [("close", 0), ("elapsed", 1)])
def test_a_position_is_turned_around_at_the_step_that_closes_it(ask_at, after_expiry):
    bk.set_config(ask_at=ask_at)
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=get_signal,
        manage=lambda position, when: bk.Close() if when.hour % 2 else None,
    )
    closed = bk.Backtest.run_sync("X", **RUN)
    for before, after in itertools.pairwise(closed):
        rest = (after.signal.pending_at - before.close_timestamp) // MINUTE
        assert rest == (0 if before.close_reason == "closed" else after_expiry)
    assert {r.close_reason for r in closed} == {"closed", "time_expired"}


def wrong(position, when):
    price = position.market_price
    return [bk.Close(0), bk.MoveStop(price * 2), bk.MoveTarget(price / 2), "sell", bk.Extend(30)]


def raises(position, when):
    raise KeyError("no such price")


@pytest.mark.parametrize(
    ("manage", "errors", "lives"),
    [
        (wrong, ["ActionError"] * 4, 90),
        (raises, ["KeyError"], 60),
        (lambda position, when: "nonsense", ["ActionError"], 60),
        (lambda position, when: 5, ["ActionError"], 60),
        (lambda position, when: bk.Close, ["ActionError"], 60),
        (lambda position, when: [[bk.Close()]], ["ActionError"], 60),
        (lambda position, when: (bk.Close(), bk.Add()), ["ActionError"], 15),
        (lambda position, when: [], [], 60),
    ],
)
def test_what_is_wrong_with_an_answer_is_told_and_the_rest_counts(manage, errors, lives):
    told, heard, asked = [], [], []

    def counted(position, when):
        asked.append(when)
        return manage(position, when) if len(asked) == 1 else None

    bk.listen_error(heard.append)
    closed = run(
        get_signal=get_signal,
        manage=counted,
        manage_interval="15m",
        callbacks={"on_manage_error": told.append},
    )
    assert minutes(closed[0]) == lives
    assert [type(event.error).__name__ for event in told] == errors
    assert told == heard
    assert {(event.where, event.when) for event in told} <= {
        ("manage", closed[0].signal.pending_at + 15 * MINUTE)
    }
    # it has used its slot
    assert asked[1] - asked[0] >= timedelta(minutes=15)
    assert asked[0] == to_datetime(closed[0].signal.pending_at) + timedelta(minutes=15)


def test_a_callback_of_errors_that_raises_stops_nothing():
    def on_manage_error(event):
        raise RuntimeError("no more")

    closed = run(
        get_signal=get_signal, manage=raises, callbacks={"on_manage_error": on_manage_error}
    )
    assert {minutes(r) for r in closed} == {60}
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert {e.where for e in data.errors} == {"manage", "callback on_manage_error"}


def test_arrays_leave_it_to_the_steps_and_give_the_same(monkeypatch):
    def manage(position, when):
        if position.minutes_held == 10:
            return bk.MoveStop(position.market_price * 0.999)
        return bk.Close(40) if position.minutes_held == 20 else None

    def get_signals(candles):
        n = len(candles)
        return bk.Signals(np.ones(n, dtype=np.int8), np.full(n, 1e6), np.full(n, np.nan), 60)

    used, original = [], FrameDriver.tabulate

    async def watched(driver, **how):
        used.append(await original(driver, **how))
        return used[-1]

    monkeypatch.setattr(FrameDriver, "tabulate", watched)
    arrays = run(get_signals=get_signals, warmup=1, manage=manage)
    assert used == [False]
    assert arrays == run(get_signal=get_signal, manage=manage)
    assert len({len(r.legs) for r in arrays}) > 1
    run(get_signals=get_signals, warmup=1)
    assert used[-1]


def test_trials_of_a_walk_ask_it():
    for name, held in (("short", 10), ("long", 40)):

        def manage(position, when, held=held):
            return bk.Close() if position.minutes_held >= held else None

        bk.add_strategy(strategy_name=name, interval="1h", get_signal=get_signal, manage=manage)
    bk.add_walker(
        walker_name="w", exchange_name="frame", frame_name="f", strategies=["short", "long"]
    )
    bk.Walker.run_sync("X", walker_name="w")
    found = bk.Walker.get_data("X", walker_name="w")
    for row in found.ranking:
        names = RUN | {"strategy_name": row.strategy_name}
        closed = bk.Backtest.run_sync("X", **names)
        total = sum(r.pnl.pnl_percentage for r in closed)
        assert row.statistics.total_pnl == pytest.approx(total, rel=1e-12)
        assert row.statistics.avg_duration_minutes == {"short": 10, "long": 40}[row.strategy_name]


def holds(held):
    def manage(position, when):
        return bk.Close() if position.minutes_held >= held else None

    return manage


def walked(store, manage, interval="1m"):
    ran = []
    with bk.Engine():
        bk.add_exchange(bk.exchanges.FrameExchange(market(3, 300, gaps=False)))
        begin, end = (to_datetime(START + n * MINUTE) for n in (60, 200))
        bk.add_frame(frame_name="f", interval="1m", start_date=begin, end_date=end)
        bk.set_config(require_stop_loss=False)
        bk.add_strategy(
            strategy_name="s",
            interval="1h",
            get_signal=get_signal,
            manage=manage,
            manage_interval=interval,
            callbacks={"on_open": ran.append},
        )
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s"])
        bk.Walker.run_sync("X", walker_name="w", store=store)
    return bool(ran)


def test_a_stored_walk_sees_its_code(tmp_path):
    assert walked(tmp_path, holds(10))
    assert not walked(tmp_path, holds(10))
    assert walked(tmp_path, holds(11))
    assert walked(tmp_path, holds(11), "5m")
    assert walked(tmp_path, lambda position, when: None, "5m")


def test_what_it_carries_from_run_to_run_is_told():
    counts = []

    def manage(position, when):
        counts.append(when)

    run(get_signal=get_signal, manage=manage)
    run(get_signal=get_signal, manage=manage)
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.left_behind == ("closure variable 'counts'",)


def test_it_is_asked_while_the_run_is_stopping():
    asked = []

    def manage(position, when):
        bk.Backtest.stop("X", strategy_name="s")
        asked.append(position.minutes_held)

    assert len(run(get_signal=get_signal, manage=manage, manage_interval="15m")) == 1
    assert asked == [15, 30, 45]


@pytest.mark.parametrize("ask_at", ["close", "elapsed"])
def test_a_life_may_go_on_behind_what_is_loaded(ask_at):
    def manage(position, when):
        return bk.Extend(180) if position.minutes_left <= 60 else None

    found = []
    for chunk in (1000, 131_072):
        with bk.Engine():
            bk.set_config(
                candles_per_chunk=chunk,
                max_signal_lifetime_minutes=2500,
                require_stop_loss=False,
                ask_at=ask_at,
            )
            bk.add_exchange(bk.exchanges.FrameExchange(market(4, 6000)))
            begin, end = (to_datetime(START + n * MINUTE) for n in (60, 2000))
            bk.add_frame(frame_name="f", interval="1m", start_date=begin, end_date=end)
            found.append(run(get_signal=get_signal, manage=manage, manage_interval="15m"))
    assert found[0] == found[1]
    assert minutes(found[0][0]) > 2300


@pytest.mark.parametrize("trigger", ["vwap", "wick"])
def test_the_best_and_the_worst_price_are_those_of_all_chunks(trigger):
    def seen(chunk):
        found = []

        def manage(position, when):
            best, worst = position.best_percent, position.worst_percent
            found.append((best, position.best_at, worst, position.worst_at))

        with bk.Engine():
            bk.set_config(
                candles_per_chunk=chunk,
                max_signal_lifetime_minutes=0,
                require_stop_loss=False,
                exit_trigger=trigger,
            )
            bk.add_exchange(bk.exchanges.FrameExchange(market(4, 9000)))
            begin, end = (to_datetime(START + n * MINUTE) for n in (60, 9000))
            bk.add_frame(frame_name="f", interval="1m", start_date=begin, end_date=end)
            free = {"position": "long", **LEVELS, "minute_estimated_time": None}
            run(get_signal=lambda symbol, when: free, manage=manage, manage_interval="1d")
        return found

    assert seen(1000) == seen(131_072)
    assert len(seen(1000)) == 6
    assert len({at for best in seen(1000) for at in best[1::2]}) > 4


def test_without_an_end_nothing_is_asked_where_the_data_end():
    bk.set_config(max_signal_lifetime_minutes=0)
    asked = []

    def manage(position, when):
        asked.append(when)

    bk.add_strategy(
        strategy_name="s",
        interval="1h",
        get_signal=lambda symbol, when: (
            {"position": "long", **LEVELS} | {"minute_estimated_time": None}
        ),
        manage=manage,
    )
    (only,) = bk.Backtest.run_sync("X", **RUN)
    assert only.close_reason == "end_of_data"
    assert asked[-1] == to_datetime(only.close_timestamp) - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"manage": 3}, "manage must be a function, not 3"),
        ({"manage_interval": "7m"}, "unknown manage_interval '7m'; use one of"),
        ({"manages": print}, "has no field 'manages'; did you mean 'manage'"),
    ],
)
def test_what_can_not_be_asked_is_refused(fields, text):
    with pytest.raises(bk.RegistrationError, match=text):
        bk.add_strategy(strategy_name="s", interval="1h", get_signal=get_signal, **fields)


def test_its_interval_is_made_of_whole_base_candles():
    bk.set_config(base_interval="15m", exit_trigger="vwap")
    with pytest.raises(bk.ConfigError, match=r"manage_interval='5m', and the base interval is 15m"):
        run(get_signal=get_signal, manage=holds(1), manage_interval="5m")
    asked = []

    def manage(position, when):
        asked.append(position.minutes_held)

    run(get_signal=get_signal, manage=manage)  # 1m stands for the base candle
    assert asked[:4] == [15, 30, 45, 15]
