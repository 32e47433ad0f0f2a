"""Random portfolios for property tests, played by the engine and by the reference."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._backtest.account_session import AccountSession, session_of
from backtest_kit._values.config import Config
from backtest_kit._values.signal import TrailingStop
from backtest_kit._values.time import INTERVALS, to_datetime
from markets import MINUTE, START, configs, deciding, managed, market, script
from positions import as_answer, as_mapping, seen_of

SYMBOLS = ["A", "B", "C"]
EXPECTED = ("SignalError", "DataRange", "Suspicious", "ActionError", "manage raises")


class World(NamedTuple):
    """One portfolio: seeds of markets and scripts, settings, account, sizings and market rules."""

    seed: int
    minutes: int
    runs: dict
    interval: str
    ask_rate: float
    config: dict
    account: dict
    sizings: dict
    rules: dict
    manages: dict


class Played(NamedTuple):
    """A world as the engine has played it: results told, risk events, what `manage` was shown.

    `wrong` says of actions that were not allowed when, of which run, and why.
    """

    session: AccountSession
    told: list
    events: list
    shown: list
    wrong: list


terms = st.sampled_from([(1.0, 0.5), (1.0, 0.0), (2.5, 2.0), (20.0, 0.5), (40.0, 2.0), (80.0, 0.0)])
accounts = st.builds(
    lambda terms, more: {"leverage": terms[0], "maintenance_percent": terms[1]} | more,
    terms,
    st.fixed_dictionaries(
        {
            "balance": st.sampled_from([50.0, 1_000.0, 123_456.0]),
            "default_percent": st.sampled_from([None, 30.0, 95.0, 250.0]),
            "on_cash_shortage": st.sampled_from(["reduce", "refuse"]),
        }
    ),
)
sizings = st.sampled_from(
    [
        None,
        {"method": "equity-percentage", "equity_percentage": 60.0},
        {"method": "fixed-percentage", "risk_percentage": 2.0},
    ]
)
rules = st.sampled_from(
    [
        {},
        {},
        {"quantity_step": 0.001},
        {"quantity_step": 0.25, "min_quantity": 0.5},
        {"quantity_step": 1.0, "min_notional": 150.0},
    ]
)
manages = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "interval": st.sampled_from(["1m", "1m", "3m", "5m"]),
            "rate": st.sampled_from([0.03, 0.3, 1.0]),
        }
    ),
)
worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    minutes=st.integers(60, 160),
    runs=st.sampled_from(
        [
            {"s": ["A"]},
            {"s": ["A", "B"]},
            {"s": ["B", "A"], "r": ["A"]},
            {"r": ["C"], "s": ["A", "B", "C"]},
        ]
    ),
    interval=st.sampled_from(["1m", "3m", "5m"]),
    ask_rate=st.sampled_from([0.05, 0.3, 1.0]),
    config=st.builds(
        lambda config, needs, wider: (
            config | {"require_stop_loss": needs, "allow_wider_stop": wider}
        ),
        configs,
        st.booleans(),
        st.booleans(),
    ),
    account=accounts,
    sizings=st.fixed_dictionaries({"s": sizings, "r": sizings}),
    rules=st.fixed_dictionaries(dict.fromkeys(SYMBOLS, rules)),
    manages=st.fixed_dictionaries({"s": manages, "r": manages}),
)

#: Worlds in which several runs act at the same minutes.
busy = st.builds(
    lambda world, seed, often: world._replace(
        seed=seed,
        minutes=200,
        runs={"r": ["C"], "s": ["A", "B", "C"]},
        ask_rate=1.0,
        manages={name: {"interval": "1m", "rate": often} for name in "rs"},
    ),
    worlds,
    st.integers(0, 2**32),
    st.sampled_from([0.3, 1.0]),
)


def rows_of(world, symbol):
    return market(world.seed + SYMBOLS.index(symbol), world.minutes)


def script_of(world, strategy, symbol):
    """The proposals of one run; some have a size of their own."""
    seed = world.seed + 10 * SYMBOLS.index(symbol) + (strategy == "r")
    answer = managed(script(seed, world.ask_rate), seed)

    def more(t, price):
        proposal = answer(t, price)
        if proposal is None:
            return None
        rng = np.random.default_rng([seed, t // MINUTE, 2])
        balance = world.account["balance"]
        if rng.random() < 0.2:
            proposal["cost"] = float(balance * rng.choice([0.1, 0.7, 2.0]))
        elif rng.random() < 0.2:
            proposal["quantity"] = float(balance * rng.choice([0.2, 0.9]) / 100)
        return proposal

    return more


def manage_of(world, strategy, symbol):
    """What `manage` of one run decides, as the reference says it; `None`: it has none."""
    how = world.manages[strategy]
    if how is None:
        return None
    seed, rate = world.seed + 10 * SYMBOLS.index(symbol) + (strategy == "r"), how["rate"]
    answer = deciding(seed, rate)

    def decide(t, seen):
        found = answer(t, seen)
        if ("nonsense", "raises") in found:
            return found
        # so that runs often add and close at the same minute
        rng = np.random.default_rng([seed, t // MINUTE, 9])
        more = [("add", 0.3), ("close", 20.0)]
        return found + [each for each in more if rng.random() < 0.4 * rate]

    return decide


def columns_of(world, strategy, symbol, *, ends=False):
    """The array strategy of one run: trades that depend on the time alone, some managed.

    Some have no stop, or no end of life; with `ends` all have.
    """
    seed = world.seed + 10 * SYMBOLS.index(symbol) + (strategy == "r")
    choices = np.random.default_rng([seed, 4])

    def pick(*ways):
        return ways[choices.integers(len(ways))]

    how = {
        "trailing_stop": pick(None, None, 0.4, bk.TrailingStop(0.7, 0.2)),
        "breakeven_percent": pick(None, None, 0.5, 0.9),
        "take_profits": pick((), (), ((0.2, 30.0),), ((0.1, 25.0), (0.25, 75.0))),
        "stop_losses": pick((), (), ((0.15, 60.0),), ((0.1, 50.0), (0.25, 30.0))),
        "entries": pick((), (), ((0.2, 1.0),), ((0.1, 0.5), (0.2, 6.0))),
    }
    bare, endless = (pick(0.0, 0.0, 0.3), pick(0.0, 0.1)) if not ends else (0.0, 0.0)

    def get_signals(candles):
        place = candles.timestamp // INTERVALS[world.interval]
        draws = np.random.default_rng(seed).random((7, 997))[:, place % 997]
        side = np.where(draws[0] < 0.5, 1, -1) * (draws[1] < world.ask_rate)
        close, down = candles.close, 0.3 + 2 * draws[3]
        limit = np.where(draws[2] < 0.4, np.nan, close * (1 + (draws[2] - 0.7) / 60))
        base = np.where(np.isnan(limit), close, limit)
        return bk.Signals(
            side,
            np.where(draws[3] < bare, np.nan, base * (1 + side * (0.3 + 2 * draws[4]) / 100)),
            np.where(draws[5] < bare, np.nan, base * (1 - side * down / 100)),
            np.where(draws[6] < endless, np.nan, np.floor(1 + 100 * draws[5] ** 3)),
            limit,
            exit_long=draws[6] < 0.1,
            exit_short=draws[6] > 0.9,
            cost=np.where(draws[4] < 0.3, world.account["balance"] * draws[3], np.nan),
            **how,
        )

    return get_signals


def register(engine, world, *, told, events, shown, wrong, slow=None, arrays=(), nights=False):
    """Register a world's exchange, account, sizings and strategies, which note what happens.

    `arrays` names the strategies that are columns. `nights`: the market is closed half an hour of
    each two.
    """
    scripts = {
        (name, symbol): script_of(world, name, symbol)
        for name, symbols in world.runs.items()
        for symbol in symbols
    }
    files = {
        symbol: bk.exchanges.FrameExchange(
            [
                list(row)
                for row in rows_of(world, symbol)
                if not nights or (row[0] - START) // MINUTE % 120 < 90
            ]
        )
        for symbol in SYMBOLS
    }

    async def get_candles(symbol, interval, since, limit):
        return await files[symbol].get_candles(symbol, interval, since, limit)

    def get_market(symbol):
        return bk.Market(base=symbol, quote="USDT", **world.rules[symbol])

    def strategy(name):
        async def get_signal(symbol, when):
            price = await bk.get_average_price(symbol)
            if slow is not None:
                await slow(name, symbol)
            return as_mapping(scripts[name, symbol](int(when.timestamp() * 1000), price))

        return get_signal

    def manage(name):
        async def decide(position, when):
            t, run = int(when.timestamp() * 1000), (name, position.signal.symbol)
            seen = seen_of(position)
            shown.append((t, run, seen))
            if slow is not None:
                await slow(*run)
            return as_answer(manage_of(world, *run)(t, seen))

        how = world.manages[name]
        return {} if how is None else {"manage": decide, "manage_interval": how["interval"]}

    engine.set_config(**world.config, get_candles_retry_delay_ms=0)
    bk.add_exchange(
        exchange_name="e",
        get_candles=get_candles,
        get_market=get_market,
        data_range=lambda _: (START, START + world.minutes * MINUTE),
        intervals=["1m", "3m", "5m"],
        calendar="data" if nights else None,
    )
    start, end = to_datetime(START), to_datetime(end_of(world))
    bk.add_frame(frame_name="f", interval="1m", start_date=start, end_date=end)
    bk.add_account(account_name="main", currency="USDT", **world.account)
    for name in world.runs:
        sizing = world.sizings[name]
        if sizing is not None:
            bk.add_sizing(sizing_name=f"of-{name}", **sizing)
        sized = None if sizing is None else f"of-{name}"
        if name in arrays:
            # one symbol each: columns know nothing of their symbol
            (symbol,) = world.runs[name]
            bk.add_strategy(
                strategy_name=name,
                interval=world.interval,
                get_signals=columns_of(world, name, symbol),
                warmup=1,
                sizing_name=sized,
            )
            continue
        bk.add_strategy(
            strategy_name=name,
            interval=world.interval,
            get_signal=strategy(name),
            sizing_name=sized,
            **manage(name),
            callbacks={
                "on_manage_error": wrong.append,
                "on_open": told.append,
                "on_close": told.append,
                "on_cancel": told.append,
                "on_add": told.append,
                "on_partial": told.append,
            },
        )
    if not arrays:
        bk.listen_risk(events.append)


def end_of(world):
    """The last instant of a world's frame (ms)."""
    return START + world.minutes * 3 // 4 * MINUTE


def played(world, *, listens=False, chunk=131_072, slow=None, arrays=(), alone=None, nights=False):
    """Play a world on a new engine; `arrays` and `nights` are as in `register`.

    `alone` is filled with the results of lone backtests of the runs, by name.
    """
    told, events, shown, wrong = [], [], [], []
    with bk.Engine() as engine:
        engine.set_config(candles_per_chunk=chunk)
        noted = {"told": told, "events": events, "shown": shown, "wrong": wrong}
        register(engine, world, **noted, slow=slow, arrays=arrays, nights=nights)
        if listens:
            bk.listen_signal(lambda tick: None)
        session = session_of(engine, world.runs, "e", "f", "main")

        async def work():
            await session.play()

        from backtest_kit._engine.task import run_blocking

        run_blocking(work)
        for record in engine.records.all():
            unexpected = [
                kind
                for kind in record.error_kinds
                if not any(known in str(kind) for known in EXPECTED)
            ]
            assert not unexpected, unexpected
        for name, symbol in session.names if alone is not None else ():
            alone[name, symbol] = bk.Backtest.run_sync(
                symbol, strategy_name=name, exchange_name="e", frame_name="f"
            )
    errors = [(e.when, (e.strategy_name, e.symbol), str(e.error)) for e in wrong]
    return Played(session, told, events, shown, errors)


__all__ = ["INTERVALS", "Config", "TrailingStop", "World", "busy", "played", "worlds"]
