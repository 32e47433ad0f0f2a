"""Draw the README's picture: what `backtest-kit demo` prints, as an SVG file."""

import contextlib
import io
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

import backtest_kit as bk
from backtest_kit.cli.demo import crossover
from backtest_kit.cli.terminal import show

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=7))
bk.add_strategy(strategy_name="crossover", interval="5m", get_signal=crossover)
bk.add_frame(
    frame_name="january",
    interval="1m",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    end_date=datetime(2024, 1, 31, 23, 59, tzinfo=UTC),
)
bk.Backtest.run_sync(
    "BTCUSDT", strategy_name="crossover", exchange_name="synthetic", frame_name="january"
)
console = Console(record=True, width=112, file=io.StringIO())
show(bk.Backtest.get_data("BTCUSDT", strategy_name="crossover"), console)
with contextlib.suppress(FileNotFoundError):
    Path(__file__).with_name("demo.svg").unlink()
console.save_svg(str(Path(__file__).with_name("demo.svg")), title="backtest-kit demo")
