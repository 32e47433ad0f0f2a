"""`bk.Heat`, `bk.Schedule`, `bk.Partial`, `bk.Performance`, `bk.Risk`: look back at runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.heat import HeatData, heat_data, heat_report
from backtest_kit._reports.partial import PartialData, partial_data, partial_report
from backtest_kit._reports.performance import (
    PerformanceData,
    performance_data,
    performance_report,
)
from backtest_kit._reports.risk import RiskData, risk_data, risk_report
from backtest_kit._reports.schedule import ScheduleData, schedule_data, schedule_report
from backtest_kit._reports.table import file_name, write
from backtest_kit._values.events import Mode

D = TypeVar("D")


class LookBack(Generic[D]):
    """A report over the runs of one strategy on the current engine.

    `symbol`, `exchange_name` and `frame_name` narrow them down; `None` takes all. Several runs are
    reported together: their rows name the frame, and counts are sums. Every method raises
    `UnknownNameError` where no run matches, naming the runs there are.
    """

    def __init__(
        self, kind: str, data: Callable[[list[RunRecord]], D], report: Callable[[D], str]
    ) -> None:
        self._kind = kind
        self._data = data
        self._report = report

    def get_data(
        self,
        symbol: str | None = None,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
        mode: Mode = "backtest",
    ) -> D:
        """Return the figures, typed."""
        records = current_engine().records.select(
            mode=mode,
            symbol=symbol,
            strategy_name=strategy_name,
            exchange_name=exchange_name,
            frame_name=frame_name,
        )
        return self._data(records)

    def get_report(self, symbol: str | None = None, **which: Any) -> str:
        """Return the figures as Markdown; the arguments are those of `get_data`."""
        return self._report(self.get_data(symbol, **which))

    def dump(
        self, symbol: str | None = None, *, path: str | Path | None = None, **which: Any
    ) -> Path:
        """Write the report into a folder (`./dump/<kind>/`) and return the file's path.

        Raises:
            OSError: the file can't be written.
        """
        parts = (
            symbol,
            which.get("strategy_name"),
            which.get("exchange_name"),
            which.get("frame_name"),
            None if which.get("mode") == "backtest" else which.get("mode"),
        )
        name = file_name(*(str(part) for part in parts if part))
        text = self.get_report(symbol, **which)
        return write(text, path or f"./dump/{self._kind}", name)


Heat: LookBack[HeatData] = LookBack("heat", heat_data, heat_report)
Schedule: LookBack[ScheduleData] = LookBack("schedule", schedule_data, schedule_report)
Partial: LookBack[PartialData] = LookBack("partial", partial_data, partial_report)
Performance: LookBack[PerformanceData] = LookBack(
    "performance", performance_data, performance_report
)
Risk: LookBack[RiskData] = LookBack("risk", risk_data, risk_report)
