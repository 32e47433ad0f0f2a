"""Who is told of entries, exits and moves of a position, and what is not built for nobody."""

from datetime import UTC, datetime

import pytest

import backtest_kit as bk
from backtest_kit._rules import transitions

NAMES = {"strategy_name": "s", "exchange_name": "synthetic", "frame_name": "f"}
LISTENERS = {
    "partial": bk.listen_partial,
    "added": bk.listen_added,
    "moved": bk.listen_moved,
}
CALLBACKS = {"partial": "on_partial", "added": "on_add", "moved": "on_move"}


def register(manage=None, manage_interval="1m", **callbacks):
    bk.set_config(min_take_profit_distance_percent=0.0, min_stop_loss_distance_percent=0.0)
    bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
    start, end = (datetime(2024, 1, day, tzinfo=UTC) for day in (2, 3))
    bk.add_frame(frame_name="f", interval="1m", start_date=start, end_date=end)

    def get_signals(candles):
        side = (candles.timestamp // 60_000 % 60 == 0).astype(int)
        ladder = {"take_profits": ((0.2, 50),), "entries": ((0.2, 1.0),)}
        trailing = {"trailing_stop": 0.3, "trailing_activate_percent": 0.1}
        return bk.Signals.bracket(side, 1.0, 0.6, 50, **ladder, **trailing)

    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signals=get_signals,
        warmup=5,
        manage=manage,
        manage_interval=manage_interval,
        callbacks=callbacks or None,
    )


def run():
    return bk.Backtest.run_sync("X", **NAMES)


def test_listeners_are_told_what_callbacks_are_and_what_all_are():
    called, everything = [], []
    register(**dict.fromkeys(CALLBACKS.values(), called.append))
    heard = {action: [] for action in LISTENERS}
    for action, listen in LISTENERS.items():
        listen(heard[action].append)
    stop = bk.listen_signal_backtest(everything.append)
    run()
    for action in LISTENERS:
        assert heard[action]
        assert heard[action] == [tick for tick in called if tick.action == action]
    assert [tick for tick in everything if tick.action in LISTENERS] == called
    ids = [tick.transition_id for tick in called]
    assert len(ids) == len(set(ids))
    # no results of single steps are wanted any more
    stop()
    before = {action: told.copy() for action, told in heard.items()}
    run()
    assert heard == {action: told * 2 for action, told in before.items()}


@pytest.mark.parametrize("action", LISTENERS)
def test_once(action):
    register()
    told = []
    once = getattr(bk, f"listen_{action}_once")
    once(lambda tick: tick.timestamp % 2 == 0, told.append)
    run()
    assert [tick.action for tick in told] == [action]


@pytest.mark.parametrize(
    ("how", "built"),
    [
        ("nobody", False),
        ("on_partial", False),
        ("partial", False),
        ("added", False),
        ("moved", True),
        ("on_move", True),
    ],
)
def test_a_move_is_built_only_where_somebody_listens(monkeypatch, how, built):
    register(**({how: print} if how.startswith("on_") else {}))
    if how in LISTENERS:
        LISTENERS[how](lambda tick: None)
    calls = []
    original = transitions.moved
    monkeypatch.setattr(transitions, "moved", lambda *of: calls.append(of) or original(*of))
    assert len(run()) > 10
    assert bool(calls) == built


def test_what_manage_raises_is_an_error_event_and_a_callback():
    errors, told = [], []

    def manage(position, when):
        raise ValueError("no")

    register(manage=manage, manage_interval="15m", on_manage_error=told.append)
    bk.listen_error(errors.append)
    assert len(run()) > 10
    assert told
    assert told == errors
    assert {(event.where, str(event.error), event.mode) for event in told} == {
        ("manage", "no", "backtest")
    }
