"""Each run of a factory begins clean; what a plain strategy carries from run to run is told."""

import asyncio
import logging
import textwrap

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._engine.leftovers import Leftovers
from backtest_kit._values.time import to_datetime
from markets import START, market

MINUTE = 60_000
RUN = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}


def setting(minutes=600):
    bk.set_config(fill_price="average")  # distances are measured from it
    bk.add_exchange(bk.exchanges.FrameExchange(market(3, minutes, gaps=False)))
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=to_datetime(START + 30 * MINUTE),
        end_date=to_datetime(START + (minutes - 30) * MINUTE),
    )


def proposal(symbol, percent=1.0):
    price = bk.average_price(symbol)
    return bk.Signal(
        position="long",
        price_take_profit=price * (1 + percent / 100),
        price_stop_loss=price * (1 - percent / 100),
        minute_estimated_time=20,
    )


class Fitted:
    """Asks for less with each call: what it knows at the end is not what it began with."""

    def __init__(self):
        self.weights = np.zeros(3)
        self.calls = 0

    def get_signal(self, symbol, when):
        signal = proposal(symbol)
        self.calls += 1
        self.weights += self.calls % 7
        return signal if self.weights.sum() < 200 else None


def results(symbol="X", **names):
    found = bk.Backtest.run_sync(symbol, **(RUN | names))
    return [(r.signal.scheduled_at, r.close_timestamp, r.pnl.pnl_percentage) for r in found]


def test_a_class_under_the_decorator_begins_each_run_clean():
    setting()
    assert bk.strategy("s", interval="5m")(Fitted) is Fitted
    first = results()
    assert first
    assert results() == first
    assert results("Y") == first
    assert bk.Backtest.get_data("X", strategy_name="s").left_behind == ()
    with bk.Engine():
        setting()
        bk.add_strategy(strategy_name="s", interval="5m", get_signal=Fitted().get_signal)
        assert results() == first


def test_what_a_plain_strategy_carries_on_is_told_once_by_name(caplog):
    setting()
    bk.add_strategy(strategy_name="s", interval="5m", get_signal=Fitted().get_signal)
    first = results()
    with caplog.at_level(logging.WARNING, "backtest_kit"):
        later = [results() for _ in range(2)]
    assert first not in later
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "strategy 's' on X began with what an earlier run left behind: object of" in told[0]
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.left_behind == ("object of 'Fitted'",)
    report = bk.Backtest.get_report("X", strategy_name="s")
    assert "**Began with what an earlier run left behind**: object of 'Fitted'" in report


def test_runs_side_by_side_share_no_made_state():
    setting()
    bk.add_strategy(strategy_name="s", interval="5m", make=Fitted)
    alone = results()

    async def one(symbol):
        return [r async for r in bk.Backtest.run(symbol, **RUN)]

    async def both():
        return await asyncio.gather(one("A"), one("B"))

    for found in asyncio.run(both()):
        assert [
            (r.signal.scheduled_at, r.close_timestamp, r.pnl.pnl_percentage) for r in found
        ] == (alone)


def counter():
    calls = 0

    def get_signal(symbol, when):
        nonlocal calls
        signal = proposal(symbol)
        calls += 1
        return signal if calls < 12 else None

    return get_signal


class Arrays:
    """Signals over arrays from an object."""

    def __init__(self):
        self.rows = 0

    def get_signals(self, candles):
        return bk.Signals.bracket(np.where(candles.close > candles.open, 1, 0), 1.0, 1.0, 20)


@pytest.mark.parametrize("make", [counter, Fitted, Arrays, lambda: Fitted().get_signal])
def test_walks_here_and_in_processes_begin_each_trial_clean(make):
    setting()
    for name in ("s", "t"):
        bk.add_strategy(strategy_name=name, interval="5m", make=make, warmup=2)
    bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s", "t"])
    here = bk.Walker.run_sync(["X", "Y"], walker_name="w")
    again = bk.Walker.run_sync(["X", "Y"], walker_name="w")
    there = bk.Walker.run_sync(["X", "Y"], walker_name="w", executor="processes")
    assert here == again == there
    assert here[0].statistics == here[1].statistics
    assert here[0].statistics.total_signals == 2 * len(results()) > 0


def test_a_kept_walk_knows_one_factory_from_another(tmp_path):
    def walk(make):
        with bk.Engine():
            setting()
            bk.add_strategy(strategy_name="s", interval="5m", make=make)
            bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s"])
            return bk.Walker.run_sync("X", walker_name="w", store=tmp_path)[0].statistics

    assert walk(Fitted) == walk(Fitted) != walk(counter)


def test_methods_of_what_is_made_are_callbacks():
    class Adaptive:
        def __init__(self):
            self.level = 1.0

        def get_signal(self, symbol, when):
            return proposal(symbol, self.level)

        def on_close(self, tick):
            self.level = 2.0 if tick.pnl.pnl_percentage < 0 else 0.7

        def on_another_thing(self, tick):
            raise AssertionError("unknown attributes are nobody's callbacks")

    setting()
    closed = []
    bk.add_strategy(strategy_name="s", interval="5m", make=Adaptive)
    levels = [
        round((r.signal.price_take_profit / r.signal.price_open - 1) * 100, 6)
        for r in bk.Backtest.run_sync("X", **RUN)
    ]
    assert levels[0] == 1.0
    assert set(levels[1:]) == {0.7, 2.0}
    bk.add_strategy(
        strategy_name="s",
        interval="5m",
        make=Adaptive,
        callbacks={"on_open": closed.append},
        replace=True,
    )
    assert len(bk.Backtest.run_sync("X", **RUN)) == len(closed) == len(levels)


class Managed(Fitted):
    def manage(self, position, when):
        return None


def half():
    made = Fitted()
    made.save = dict
    return made


def raises():
    raise ValueError("no data")


def on_close(tick):
    return None


class Closing(Fitted):
    on_close = staticmethod(on_close)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"make": raises}, bk.StrategyFailedError, "'s': its factory raised ValueError: no data"),
        ({"make": lambda: 3}, bk.RegistrationError, "returned 3; it must be a function"),
        (
            {"make": Managed, "manage": lambda position, when: None},
            bk.RegistrationError,
            "both it and .* have manage",
        ),
        ({"make": half}, bk.RegistrationError, "save and load go together"),
        ({"make": Fitted, "get_signal": print}, bk.RegistrationError, "give either"),
        ({"get_signal": Fitted}, bk.RegistrationError, "is a class; give it as make"),
        ({"make": 5}, bk.RegistrationError, "make must be a function"),
        (
            {"make": Closing, "callbacks": {"on_close": on_close}},
            bk.RegistrationError,
            "both callbacks and .* have on_close",
        ),
    ],
)
def test_a_factory_that_makes_nothing_to_ask_is_told_to_the_caller(fields, error, text):
    setting()

    def begin(run, **names):
        if not bk.list_strategies():
            bk.add_strategy(strategy_name="s", interval="5m", **fields)
        run("X", strategy_name="s", exchange_name="frame", **names)

    with pytest.raises(error, match=text):
        begin(bk.Backtest.run, frame_name="f")
    with pytest.raises(error, match=text):
        begin(bk.Live.run)


def test_a_factory_that_raises_fails_its_trial_alone():
    setting()
    bk.add_strategy(strategy_name="s", interval="5m", make=raises)
    bk.add_strategy(strategy_name="t", interval="5m", make=counter)
    bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s", "t"])
    failed, fine = bk.Walker.run_sync("X", walker_name="w")
    assert "its factory raised ValueError: no data" in failed.error
    assert fine.statistics.total_signals > 0


def written(source):
    """Return the function `f` of a module with this source."""
    names = {"__name__": "__main__", "np": np}
    exec(textwrap.dedent(source), names)
    return names["f"]


CHANGED = {
    "closure variable 'seen'": """
        def make():
            seen = []
            def f(symbol, when):
                seen.append(when)
            return f
        f = make()
    """,
    "default of 'seen'": """
        def f(symbol, when, seen={}):
            seen[when] = symbol
    """,
    "argument 1 of a partial": """
        import functools
        def ask(seen, symbol, when):
            seen.append(when)
        f = functools.partial(ask, [])
    """,
    "argument 'seen' of a partial": """
        import functools
        def ask(symbol, when, *, seen, most):
            seen[when] = most
        f = functools.partial(functools.partial(ask, seen={}), most=3)
    """,
    "argument 2 of a partial": """
        import functools
        def ask(most, seen, symbol, when):
            seen.append(most)
        ask_other = functools.partial(ask, 3, [])
        def f(symbol, when):
            ask_other(symbol, when)
    """,
    "attribute 'f.seen'": """
        def f(symbol, when):
            f.seen.append(when)
        f.seen = []
    """,
    "attribute 'inner.calls'": """
        import functools
        def counted(function):
            @functools.wraps(np.mean)
            def inner(*args):
                inner.calls += 1
                return function(*args)
            inner.__name__ = "inner"
            inner.calls = -2
            return inner
        f = counted(lambda symbol, when: None)
    """,
    "global 'level'": """
        level = -2
        def f(symbol, when):
            global level
            level = -1
    """,
    "global 'levels'": """
        levels = [-2.0, range(-2, 5), 2**61]
        def f(symbol, when):
            levels[:] = [-1.0, range(-1, 5), 1]
    """,
    "global 'count'": """
        count = 0
        def add():
            global count
            count += 1
        def f(symbol, when):
            [add() for _ in range(1)]
    """,
    "global 'weights'": """
        weights = np.zeros((30, 10))[:, ::2]
        def f(symbol, when):
            weights[0] += 1
    """,
    "global 'late'": """
        def f(symbol, when):
            global late
            late = 5
    """,
    "global 'rng'": """
        rng = np.random.default_rng(1)
        def f(symbol, when):
            return rng.random()
    """,
    "global 'model'": """
        class Model:
            __slots__ = ("inner",)
        class Inner:
            pass
        model = Model()
        model.inner = Inner()
        model.inner.slope = float("nan")
        def f(symbol, when):
            model.inner.slope = 2.0
    """,
    "class variable 'Model.cache'": """
        class Model:
            cache = {}
            def ask(self, when):
                self.cache[when] = 1
        def f(symbol, when):
            Model().ask(when)
    """,
    "object of 'Strategy'": """
        class Strategy:
            last = None
            def ask(self, symbol, when):
                self.last = [when]
        f = Strategy().ask
    """,
    "object of 'Called'": """
        class Called:
            last = None
            def __call__(self, symbol, when):
                self.last = [when]
        f = Called()
    """,
}


@pytest.mark.parametrize("name", CHANGED)
def test_each_kind_of_state_is_named(name):
    function = written(CHANGED[name])
    begun = Leftovers(function, made=False)
    assert begun.found == ()
    function("X", 1)
    begun.note()
    later = Leftovers(function, made=False)
    assert later.found == (name,)
    assert Leftovers(function, made=False).found == (name,)


UNCHANGED = {
    "constants": """
        fast, levels, nan = 10, [1, 2.0, "a"], float("nan")
        def f(symbol, when):
            return fast, levels, nan
    """,
    "a logger and a lock": """
        import logging, threading
        log, lock = logging.getLogger("x"), threading.Lock()
        def f(symbol, when):
            with lock:
                log.warning if log.isEnabledFor(10) else None
    """,
    "itself": """
        box = []
        box.append(box)
        def f(symbol, when):
            return f, box
    """,
    "an object that fails when it is looked at": """
        class Bad:
            def __getattr__(self, name):
                raise RuntimeError(name)
            def __hash__(self):
                raise RuntimeError("hash")
        bad, count = Bad(), 0
        def f(symbol, when):
            return bad, count
    """,
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_does_not_change_is_not_told(name):
    function = written(UNCHANGED[name])
    for _ in range(3):
        begun = Leftovers(function, made=False)
        assert begun.found == ()
        function("X", 1)
        begun.note()


def test_what_the_user_sets_between_runs_is_not_told():
    function = written(CHANGED["global 'count'"])
    begun = Leftovers(function, made=False)
    function("X", 1)
    begun.note()
    function.__globals__["count"] = 0  # put back
    assert Leftovers(function, made=False).found == ()
    function.__globals__["count"] = 7  # set to something else
    assert Leftovers(function, made=False).found == ()


def test_large_state_is_looked_at_in_part():
    big = {"rows": [[float(i)] * 5 for i in range(50_000)], "array": np.zeros(5_000_000)}

    def function(symbol, when):
        big["rows"].append(symbol)

    begun = Leftovers(function, made=False)
    function("X", 1)
    begun.note()
    assert Leftovers(function, made=False).found == ("closure variable 'big'",)


def test_strategies_that_share_a_global_are_told_of_each_other():
    function = written(CHANGED["global 'count'"])
    other = function.__globals__["g"] = type(function)(
        function.__code__, function.__globals__, "other"
    )
    begun = Leftovers(function, made=True)
    function("X", 1)
    begun.note()
    assert Leftovers(other, made=True).found == ("global 'count'",)
