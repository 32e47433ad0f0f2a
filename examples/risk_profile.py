"""One risk profile over three symbols: never more than two positions, never two on one side."""

import asyncio
from datetime import UTC, datetime

import backtest_kit as bk

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=5))
bk.add_frame(
    frame_name="week",
    interval="1m",
    start_date=datetime(2024, 5, 6, tzinfo=UTC),
    end_date=datetime(2024, 5, 13, tzinfo=UTC),
)


def two_positions(check: bk.RiskCheck) -> str | None:
    """Allow two positions at a time over all symbols."""
    return "two positions are open" if check.active_count >= 2 else None


def one_per_side(check: bk.RiskCheck) -> str | None:
    """Allow one long and one short position."""
    sides = {position.position for position in check.active_positions}
    return f"already {check.signal.position}" if check.signal.position in sides else None


bk.add_risk(risk_name="book", validations=[two_positions, one_per_side])


@bk.strategy("momentum", interval="15m", risk_name="book")
async def momentum(symbol: str, when: datetime) -> bk.Signal | None:
    """Follow a move of more than 1 % in an hour."""
    closes = (await bk.get_candles(symbol, "15m", 5)).close
    move = closes[-1] / closes[0] - 1
    if abs(move) < 0.01:
        return None
    price = await bk.get_average_price(symbol)
    side = 1 if move > 0 else -1
    return bk.Signal(
        position="long" if side > 0 else "short",
        price_take_profit=price * (1 + side * 0.02),
        price_stop_loss=price * (1 - side * 0.01),
        minute_estimated_time=300,
    )


async def main() -> None:
    """Run the symbols side by side: they share the profile in simulated time."""
    names = {"strategy_name": "momentum", "exchange_name": "synthetic", "frame_name": "week"}
    await asyncio.gather(*(bk.Backtest.background(symbol, **names) for symbol in SYMBOLS))
    print(bk.Heat.get_report(strategy_name="momentum"))
    print(bk.Risk.get_report(strategy_name="momentum"))


if __name__ == "__main__":
    asyncio.run(main())
