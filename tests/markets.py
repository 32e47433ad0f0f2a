"""Random markets and random scripts for them, as Hypothesis strategies."""

import functools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.time import INTERVALS

MINUTE = 60_000
START = 1_704_067_200_000  # 2024-01-01T00:00Z


class Case(NamedTuple):
    """One backtest to compare: seeds of the market and the script, and the settings."""

    seed: int
    minutes: int
    frame: str
    interval: str
    ask_rate: float
    coarse: bool
    config: dict


def market(seed, minutes=400, gaps=True, quiet=True, coarse=False):
    """Rows (t, o, h, l, c, v) of a jumpy market with gaps, wicks and minutes without volume.

    A coarse one has no volume and prices in steps of a half, so that levels are met exactly.
    """
    return [*_market(seed, minutes, gaps, quiet, coarse)]


@functools.lru_cache(128)  # most properties play one market several times
def _market(seed, minutes, gaps, quiet, coarse):
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.0005, 0.002, 0.01])
    rows, close = [], 100.0
    hole = 0
    for i in range(minutes):
        if gaps and i > 10:
            hole = hole - 1 if hole > 0 else int(rng.integers(1, 30)) * (rng.random() < 0.01)
            if hole > 0 and i < minutes - 1:
                continue
        jump = rng.normal(0, scale * (8 if rng.random() < 0.03 else 0.5))
        opening = round(close * (1 + jump), 4)
        close = round(opening * (1 + rng.normal(0, scale)), 4)
        high = max(opening, close) * (1 + abs(rng.normal(0, scale)))
        low = min(opening, close) * (1 - abs(rng.normal(0, scale)))
        volume = 0.0 if quiet and rng.random() < 0.2 else round(rng.gamma(2.0, 3.0), 3)
        rows.append(
            (
                START + i * MINUTE,
                opening,
                round(high + 1e-4, 4),
                round(low - 1e-4, 4),
                close,
                volume,
            )
        )
    if coarse:
        rows = [(row[0], *(round(x * 2) / 2 for x in row[1:5]), 0.0) for row in rows]
    return rows


def spiked(rows, seed, rate=0.04):
    """The rows with prices 25 times off: in a wick, up to the close, in all of a candle, for good.

    Never 1000 times off both closes before.
    """
    rng = np.random.default_rng([seed, 7])
    found, level = [], 1.0
    for t, *prices, volume in rows:
        kind, factor = rng.random() / rate, 25.0 if rng.random() < 0.5 else 1 / 25
        opening, high, low, close = prices
        if kind < 0.4:
            high, low = max(high, high * factor), min(low, low * factor)
        elif kind < 0.6:
            high, low = max(high, high * factor), min(low, low * factor)
            close = high if factor > 1 else low
        elif kind < 0.8:
            opening, high, low, close = (price * factor for price in prices)
        elif kind < 1 and level in (1.0, 1 / factor):
            level *= factor
        found.append((t, *(price * level for price in (opening, high, low, close)), volume))
    return found


def script(seed, rate, coarse=False):
    """A function (t, price) -> proposal or None; the same answer whoever asks."""

    def answer(t, price):
        rng = np.random.default_rng([seed, t // MINUTE])
        if rng.random() > rate:
            return None
        side = 1 if rng.random() < 0.5 else -1
        up, down = rng.choice([0.0, 0.4, 0.6, 1.5, 4.0], 2, p=[0.02, 0.03, 0.35, 0.4, 0.2])
        entry = None
        base = price
        if rng.random() < 0.5:
            base = entry = float(price * (1 - side * rng.choice([-0.3, 0.0, 0.1, 0.5, 2.0]) / 100))
        if coarse:
            base = round(base * 2) / 2
            entry = None if entry is None else base
        proposal = {
            "position": "long" if side > 0 else "short",
            "price_take_profit": float(base * (1 + side * up / 100)),
            "price_stop_loss": float(base * (1 - side * down / 100)),
            "minute_estimated_time": int(rng.choice([1, 2, 4, 7, 30, 120, 1440])),
        }
        if entry is not None:
            proposal["price_open"] = entry
        if coarse:
            for level in ("price_take_profit", "price_stop_loss"):
                proposal[level] = round(proposal[level] * 2) / 2
        return proposal

    return answer


def managed(answer, seed, some=0.8):
    """The script `answer`, of whose proposals some are managed, or lack a level; as the reference.

    Some of them are invalid.
    """

    def pick(rng, *choices):
        return choices[rng.integers(len(choices))]

    def more(t, price):
        proposal = answer(t, price)
        rng = np.random.default_rng([seed, t // MINUTE, 1])
        if proposal is None or rng.random() > some:
            return proposal
        for name in ("price_take_profit", "price_stop_loss", "minute_estimated_time"):
            if rng.random() < 0.2:
                proposal[name] = None
        how = {
            "trailing_stop": pick(rng, None, (0.3, 0.0), (0.7, 0.2), (2.0, 0.0), (100.0, 0.0)),
            "breakeven_percent": pick(rng, None, None, 0.5, 0.7, 1.5, 0.1),
            "take_profits": pick(
                rng, (), (), ((0.5, 30.0),), ((0.5, 25.0), (1.0, 25.0)), ((0.6, 50.0), (0.9, 50.0))
            ),
            "stop_losses": pick(rng, (), (), ((0.5, 60.0),), ((0.5, 50.0), (0.8, 50.0))),
            "entries": pick(rng, (), (), ((0.2, 1.0),), ((0.1, 0.5), (0.3, 2.0), (0.5, 4.0))),
        }
        if rng.random() < 0.02:
            how["take_profits"] = pick(rng, ((1.0, 50.0), (0.5, 20.0)), ((0.5, 120.0),))
        return proposal | {name: x for name, x in how.items() if x and rng.random() < 0.7}

    return more


def deciding(seed, rate, coarse=False):
    """A function (t, seen) -> pairs of an action and its value, at random; some are not allowed.

    `seen` is what the reference shows of a position. The same answer whoever asks.
    """

    def answer(t, seen):
        rng = np.random.default_rng([seed, t // MINUTE, 8])
        if rng.random() > rate:
            return []
        side, price = seen["side"], seen["price"]

        def away(distances):
            level = price * (1 + side * rng.choice(distances) / 100)
            return float(round(level * 2) / 2 if coarse else level)

        def one():
            kind = rng.random()
            if kind < 0.3:
                known = seen["price_stop_loss"]
                near = away([-0.05, -0.1, -0.4, -1.0, -2.5, -10.0, -22.0, 0.0, 0.3, -100.0])
                return "stop", known if known is not None and rng.random() < 0.1 else near
            if kind < 0.5:
                known = seen["price_take_profit"]
                near = away([0.05, 0.1, 0.4, 1.0, 10.0, 0.0, -0.3])
                return "target", known if known is not None and rng.random() < 0.1 else near
            if kind < 0.7:
                shares = [100.0, 60.0, 33.3, 5.0, 1e-9, 100 - 1e-8, 0.0, 120.0, np.nan]
                return "close", float(rng.choice(shares))
            if kind < 0.85:
                return "add", float(rng.choice([1.0, 0.3, 5.0, 1e-3, 0.0, -1.0, np.inf]))
            if kind < 0.97:
                return "extend", int(rng.choice([1, 7, 60, 1000, 0, -3]))
            return "nonsense", "text"

        if rng.random() < 0.03:
            return [("nonsense", "raises")]
        return [one() for _ in range(rng.choice([1, 1, 1, 2, 3, 5]))]

    return answer


configs = st.fixed_dictionaries(
    {
        "exit_trigger": st.sampled_from(["vwap", "wick"]),
        "fill_price": st.sampled_from(["market", "average"]),
        "ask_at": st.sampled_from(["close", "elapsed"]),
        "ambiguous_candle": st.sampled_from(["stop_loss_first", "take_profit_first"]),
        "schedule_await_minutes": st.sampled_from([1, 5, 30, 120]),
        "avg_price_candles_count": st.sampled_from([1, 2, 5, 9]),
        "min_take_profit_distance_percent": st.sampled_from([0.0, 0.5]),
        "min_stop_loss_distance_percent": st.sampled_from([0.0, 0.5]),
        "max_stop_loss_distance_percent": st.sampled_from([0.0, 3.0, 20.0]),
        "max_signal_lifetime_minutes": st.sampled_from([0, 120, 1440]),
        "percent_slippage": st.sampled_from([0.0, 0.1]),
        "percent_fee": st.sampled_from([0.0, 0.1]),
    }
)
cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    minutes=st.integers(100, 600),
    frame=st.one_of(st.sampled_from(["1m", "3m", "5m"]), st.sampled_from([*INTERVALS])),
    interval=st.one_of(st.sampled_from(["1m", "3m", "5m"]), st.sampled_from([*INTERVALS])),
    ask_rate=st.sampled_from([0.02, 0.3, 1.0]),
    coarse=st.booleans(),
    config=configs,
)


def played(seed, shift=0, symbol="X", **config):
    """A backtest of signals at each eleventh minute, as `bk.backtest` returns it."""

    def get_signals(candles):
        rows = candles.timestamp // 60_000
        return bk.Signals.bracket(((rows + shift) % 11 == 0).astype(np.int8), 0.7, 0.6, 30)

    schema = bk.StrategySchema(strategy_name="s", interval="1m", get_signals=get_signals, warmup=1)
    return bk.backtest([list(row) for row in market(seed, 400)], schema, symbol=symbol, **config)
