"""A shared profile counts a position to its real end, also where that lies behind a weekend."""

import asyncio
from datetime import UTC, datetime

import backtest_kit as bk
from backtest_kit.testing import LeapingEventLoop

HOUR = 3_600_000
FRIDAY = 1_704_448_800_000 - 1_704_448_800_000 % (24 * HOUR)  # 2024-01-05


def rows(calendar):
    times = range(FRIDAY - 48 * HOUR, FRIDAY + 120 * HOUR, HOUR)
    saturday, monday = FRIDAY + 24 * HOUR, FRIDAY + 72 * HOUR
    return [
        [t, 100.0, 100.1, 99.9, 100.0, 1.0]
        for t in times
        if calendar is None or not saturday <= t < monday
    ]


def at(hour):
    return datetime.fromtimestamp((FRIDAY + hour * HOUR) / 1000, UTC)


def proposing(hour, minutes):
    async def get_signal(symbol, when):
        await asyncio.sleep(0.01)
        if when != at(hour):
            return None
        return bk.Signal(
            position="long",
            price_take_profit=110.0,
            price_stop_loss=90.0,
            minute_estimated_time=minutes,
        )

    return get_signal


def trades(begun_first):
    """The trades of A (Friday 20:00, six hours, to Monday) and of B (Saturday at six)."""

    async def one(name, frame):
        names = {"strategy_name": name, "exchange_name": name, "frame_name": frame}
        return [tick async for tick in bk.Backtest.run("X", **names)]

    async def both():
        if begun_first == "A":
            return await asyncio.gather(one("A", "f"), one("B", "f"))
        late = asyncio.ensure_future(one("B", "f"))
        await asyncio.sleep(0.5)  # a call takes a hundredth: B has opened, and is on its way
        assert not late.done()
        return [await one("A", "f"), await late]

    with bk.Engine(), asyncio.Runner(loop_factory=LeapingEventLoop) as runner:
        bk.add_risk(risk_name="p", validations=[lambda c: "one" if c.active_count else None])
        for name, calendar, hour, minutes in (("A", "weekdays", 20, 360), ("B", None, 30, 600)):
            bk.add_exchange(
                bk.exchanges.FrameExchange(rows(calendar), exchange_name=name), calendar=calendar
            )
            bk.add_strategy(
                strategy_name=name,
                interval="1h",
                get_signal=proposing(hour, minutes),
                risk_name="p",
            )
        bk.add_frame(frame_name="f", interval="1h", start_date=at(0), end_date=at(100))
        return runner.run(both())


def test_a_position_over_a_weekend_is_counted_to_its_end():
    first, second = trades("A")
    assert [t.close_timestamp for t in first] == [FRIDAY + 73 * HOUR]
    assert second == []
    for begun_first in ("A", "B"):
        spans = [
            (t.signal.pending_at, t.close_timestamp) for found in trades(begun_first) for t in found
        ]
        assert spans
        assert all(
            a[1] <= b[0] or b[1] <= a[0] for i, a in enumerate(spans) for b in spans[i + 1 :]
        )
