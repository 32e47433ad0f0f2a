"""Array strategies that look into the future are caught, and those with a long memory are told."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays import peeking
from backtest_kit._arrays.signals import evaluate
from markets import market

CANDLES = bk.Candles(*map(list, zip(*market(3, 900, gaps=False), strict=True)))
WARMUP = 40


def crossing(fast, slow):
    side = np.sign(fast - slow)
    before = np.concatenate(([np.nan], side[:-1]))
    return np.where(side != before, np.nan_to_num(side), 0)


def of_means(mean):
    def get_signals(candles):
        return bk.Signals.bracket(crossing(mean(candles.close, 5), mean(candles.close, 20)))

    return get_signals


def cumulative(values, count):
    sums = np.concatenate(([0.0], np.cumsum(values)))
    out = np.full(len(values), np.nan)
    out[count - 1 :] = (sums[count:] - sums[:-count]) / count
    return out


def exponential(values, count):
    out = np.empty(len(values))
    last = values[0]
    for i, value in enumerate(values):
        last = out[i] = last + (value - last) * 2 / (count + 1)
    return out


def next_close(candles):
    later = np.concatenate((candles.close[1:], [np.nan]))
    return bk.Signals.bracket(np.where(later > candles.close * 1.001, 1, 0))


def far_close(candles):
    later = np.concatenate((candles.close[300:], np.full(min(300, len(candles)), np.nan)))
    return bk.Signals.bracket(np.where(later > candles.close * 1.001, 1, 0))


def normalized(candles):
    score = (candles.close - candles.close.mean()) / candles.close.std()
    return bk.Signals.bracket(np.where(score > 1, -1, np.where(score < -1, 1, 0)))


def centred(candles):
    smooth = np.convolve(candles.close, np.ones(5) / 5, "same")
    return bk.Signals.bracket(np.where(candles.close > smooth, 1, -1))


def only_the_price(candles):
    highest = np.maximum.accumulate(candles.high[::-1])[::-1]
    return bk.Signals(np.ones(len(candles)), highest * 1.01, candles.close * 0.99, 60)


def verify(function, most=32):
    signals = evaluate(function, CANDLES)
    return peeking.verify(function, CANDLES, signals, WARMUP, most, "s")


@pytest.mark.parametrize("function", [next_close, far_close, normalized, centred, only_the_price])
def test_a_look_into_the_future_is_refused(function):
    with pytest.raises(bk.PeekingError, match="strategy 's' looks into the future: at row") as told:
        verify(function)
    assert " (the candle of 2024-01-01T" in str(told.value)
    assert "with later candles and" in str(told.value)


def next_or_last(candles):
    later = np.append(candles.close[1:], candles.close[-1])
    return bk.Signals.bracket(later >= candles.close)  # a window alone always says yes


def on_this_day(candles):
    day = candles.timestamp // 86_400_000
    return bk.Signals.bracket(candles.close > candles.close[day == day[-1]].mean())


@pytest.mark.parametrize(("rows", "warmup"), [(300, 20), (900, 100), (900, 400)])
@pytest.mark.parametrize("function", [next_or_last, on_this_day])
def test_few_rows_alone_and_some_together_find_a_look_of_one_candle(function, rows, warmup):
    found = 0
    for seed in range(20):
        candles = bk.Candles(*map(list, zip(*market(seed, rows, gaps=False), strict=True)))
        signals = evaluate(function, candles)
        try:
            peeking.verify(function, candles, signals, warmup, 6, "s")
        except bk.PeekingError:
            found += 1
    assert found >= 18


def test_a_later_array_of_candles_is_looked_at_as_well():
    candles = CANDLES[-200:]
    with pytest.raises(bk.PeekingError):
        peeking.verify(next_close, candles, evaluate(next_close, candles), 100, 1, "s")


def test_windows_alone_are_exact():
    assert verify(of_means(bk.trailing_mean)) is None
    assert verify(lambda c: bk.Signals.atr_bracket(np.ones(len(c)), c)) is None


def test_a_long_memory_is_no_peeking_but_told():
    row = verify(of_means(exponential), most=400)
    assert row is not None
    assert row >= WARMUP - 1
    levels = lambda c: bk.Signals(  # noqa: E731
        np.ones(len(c)), cumulative(c.close, 5) * 1.02, c.close * 0.98, 60
    )
    assert verify(levels) is not None


def test_scrambling_keeps_the_past_and_the_rules():
    mixed = peeking.scrambled(CANDLES, 500)
    for column, own in zip(mixed.columns(), CANDLES.columns(), strict=True):
        assert (column[:501] == own[:501]).all()
    assert (mixed.timestamp == CANDLES.timestamp).all()
    assert (mixed.close[501:] != CANDLES.close[501:]).mean() > 0.9
    low = np.minimum(mixed.open, mixed.close)
    assert (mixed.low <= low).all()
    assert (mixed.high >= np.maximum(mixed.open, mixed.close)).all()
    assert (mixed.low > 0).all()


def test_rows_to_look_at_are_spread_and_have_sides():
    sides = np.zeros(1000, dtype=np.int8)
    sides[[50, 400, 999]] = 1
    signals = bk.Signals.bracket(sides)
    rows = peeking.sampled(signals, 40, 8)
    assert rows == sorted(set(rows))
    assert {40, 50, 400, 999} <= set(rows)
    assert peeking.sampled(signals, 1000, 8) == []


@pytest.mark.parametrize("count", [1, 3, 40, 900])
def test_a_trailing_mean_is_that_of_its_window_to_the_last_bit(count):
    values = np.tile(CANDLES.close, 10)
    mean = bk.trailing_mean(values, count)
    assert np.isnan(mean[: count - 1]).all()
    for i in range(count - 1, len(values), 731):
        window = values[i + 1 - count : i + 1]
        assert bk.trailing_mean(window, count)[-1] == mean[i]
        assert mean[i] == pytest.approx(window.mean(), rel=1e-12)


@given(st.integers(1, 130), st.integers(0, 5000), st.integers(0, 2**32))
def test_the_kernel_makes_the_same_means(count, rows, seed):
    kernel = pytest.importorskip("backtest_kit._arrays.kernel", reason="needs Numba")
    values = np.random.default_rng(seed).normal(100.0, 5.0, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backtest_kit._arrays.signals.kernel_ready", threading.Event())
        plain = bk.trailing_mean(values, count)
    compiled = kernel.window_means(values, count) if rows >= count else np.full(rows, np.nan)
    assert plain.tobytes() == compiled.tobytes()
    assert bk.trailing_mean(values, count).tobytes() == plain.tobytes()


def test_bad_counts():
    with pytest.raises(ValueError, match="count=0 must be a whole number, 1 or more"):
        bk.trailing_mean([1.0], 0)
    assert np.isnan(bk.trailing_mean([1.0, 2.0], 3)).all()


def test_an_atr_bracket_by_hand():
    candles = bk.Candles(
        [0, 60_000, 120_000, 180_000],
        [10, 10, 12, 11],
        [11, 12, 13, 14],
        [9, 10, 11, 11],
        [10, 11, 12, 13],
        [1, 1, 1, 1],
    )
    signals = bk.Signals.atr_bracket([1, 1, -1, 1], candles, 3.0, 1.5, 30, period=2)
    assert signals.side.tolist() == [0, 0, -1, 1]
    # true ranges 2 (12 - 10), 2 (13 - 11), 3 (14 - 11); means 2 and 2.5; closes 12 and 13
    assert signals.price_take_profit[2:] == pytest.approx([3 * 2 / 12 * 100, 3 * 2.5 / 13 * 100])
    assert signals.price_stop_loss[2:] == pytest.approx([1.5 * 2 / 12 * 100, 1.5 * 2.5 / 13 * 100])
    price = 12.5
    row = signals.row(2, price)
    assert row.position == "short"
    assert row.price_take_profit == pytest.approx(price * (1 - 3 * 2 / 12))
    assert row.price_stop_loss == pytest.approx(price * (1 + 1.5 * 2 / 12))
