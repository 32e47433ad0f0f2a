"""Memory does not grow with the length of a run."""

import subprocess
import sys

import pytest

from command import PATIENCE

CODE = """
import numpy
from pathlib import Path
def peak():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024
before = peak()
from datetime import UTC, datetime
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1))
bk.add_frame(frame_name="f", interval="1m", start_date=datetime(2014, 1, 1, tzinfo=UTC),
             end_date=datetime(2024, 1, 1, tzinfo=UTC))
@bk.strategy("s", interval="1h")
def s(symbol, when):
    hours = bk.candles(symbol, "1h", 24).close
    if when.hour == 12 and hours[-1] > hours.mean():
        p = bk.average_price(symbol)
        return bk.Signal(position="long", price_take_profit=p * 1.02, price_stop_loss=p * 0.98,
                         minute_estimated_time=300)
n = len(bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f"))
print(peak() - before, n, bk.Backtest.get_data("X", strategy_name="s").complete)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_ten_years_of_minutes_fit_into_250_mb():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    megabytes, trades, complete = done.stdout.split()
    assert float(megabytes) < 250
    assert int(trades) > 1000
    assert complete == "True"
