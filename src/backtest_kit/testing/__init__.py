"""For those who test their own parts: strategies, exchanges, persist adapters, live runs.

- `moment` calls a strategy's function at an instant over given candles, without a backtest.
- `EXCHANGE_CHECKS` and `ADAPTER_CHECKS` are what every exchange and every adapter must pass.
- `SimulatedTime` runs a live session by a clock that leaps from one timer to the next;
  `FaultyExchange` is an exchange in that time which fails on command.

With pytest:

    @pytest.mark.parametrize("check", backtest_kit.testing.ADAPTER_CHECKS)
    def test_my_adapter(check, tmp_path):
        check(lambda: MyAdapter(tmp_path))

    @pytest.mark.parametrize("check", backtest_kit.testing.EXCHANGE_CHECKS)
    def test_my_exchange(check):
        check(MyExchange(), "BTCUSDT", datetime(2024, 1, 1, tzinfo=UTC))
"""

from __future__ import annotations

from backtest_kit.testing._adapters import (
    ADAPTER_CHECKS,
    HOSTILE_KEYS,
    MemoryAdapter,
    check_adapter,
)
from backtest_kit.testing._exchanges import EXCHANGE_CHECKS, FaultyExchange, check_exchange
from backtest_kit.testing._moment import moment
from backtest_kit.testing._time import LeapingEventLoop, SimulatedTime

__all__ = [
    "ADAPTER_CHECKS",
    "EXCHANGE_CHECKS",
    "HOSTILE_KEYS",
    "FaultyExchange",
    "LeapingEventLoop",
    "MemoryAdapter",
    "SimulatedTime",
    "check_adapter",
    "check_exchange",
    "moment",
]
