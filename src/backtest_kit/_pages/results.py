"""Results that show themselves: what runs return, with `plot` and `report`.

What draws is imported when something is drawn: most runs draw nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from backtest_kit._engine.engine import Engine
from backtest_kit._reports.backtest import BacktestData
from backtest_kit._reports.live import LiveData
from backtest_kit._reports.walker import conclusion
from backtest_kit._statistics.plateau import Plateau, plateau
from backtest_kit._statistics.ranking import WalkerData, with_intervals
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.schemas import ExchangeSchema

if TYPE_CHECKING:
    from bokeh.models import Column
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

    from backtest_kit._pages.market import Market


class _Source(NamedTuple):
    """Where the candles of a run come from; the engine, which keeps them, may be gone."""

    engine: weakref.ref[Engine]
    exchange: ExchangeSchema


class BacktestResult(BacktestData, frozen=True, kw_only=True, dict=True):
    """A backtest's data, with the exchange from which its candles are read again for a picture."""

    def plot(self) -> Column:
        """Return a Bokeh figure: candles with trades, the curve of profits, the drawdown.

        Without candles where they can no longer be had.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
        """
        from backtest_kit._pages.figure import backtest_figure
        from backtest_kit._pages.page import require_bokeh

        require_bokeh()
        market = self._market()
        return backtest_figure(self, None if market is None else market.candles)

    def report(self, path: str | Path) -> Path:
        """Write the result as one self-contained HTML page, and return its path.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
            OSError: the file can't be written.
        """
        from backtest_kit._pages.backtest_page import backtest_page
        from backtest_kit._pages.market import sensitivity_of
        from backtest_kit._pages.page import require_bokeh, write_page

        require_bokeh()
        market = self._market()
        candles = None if market is None else market.candles
        return write_page(backtest_page(self, candles, sensitivity_of(self, market)), path)

    def sensitivity(self) -> Sensitivity:
        """Return what the profit depends on: costs, delays, ambiguous candles, the best trades."""
        from backtest_kit._pages.market import sensitivity_of

        return sensitivity_of(self, self._market())

    def _market(self) -> Market | None:
        from backtest_kit._pages.market import load_market

        source: _Source | None = self.__dict__.get("source")
        if source is None:
            return None
        return load_market(source.engine() or Engine(), source.exchange, self)

    def __eq__(self, other: object) -> bool:
        """Compare what was found, whatever it was read from."""
        if not isinstance(other, BacktestData):
            return NotImplemented
        return msgspec.structs.astuple(self) == msgspec.structs.astuple(other)

    __hash__ = BacktestData.__hash__


class WalkResult(WalkerData, frozen=True, kw_only=True, dict=True):
    """The ranking of a walk, with the trades of its trials."""

    @property
    def trials_kept(self) -> Sequence[TrialResult]:
        """The trials so far, in the order in which they ran."""
        found: Sequence[TrialResult] = self.__dict__.get("trials_kept_", ())
        return found

    def plot(self) -> Figure:
        """Return a Bokeh figure: the sums of profits of all strategies, the best in a thick line.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
        """
        from backtest_kit._pages.figure import walk_figure

        return walk_figure(self, self.trials_kept)

    def report(self, path: str | Path) -> Path:
        """Write the result as one self-contained HTML page, and return its path.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
            OSError: the file can't be written.
        """
        from backtest_kit._pages.page import write_page
        from backtest_kit._pages.walk_page import walk_page

        return write_page(walk_page(self, self.trials_kept), path)

    def plateau(self) -> Plateau | None:
        """Return what is left of the metric one step beside the best; `None` without a grid."""
        return plateau(self)

    def with_intervals(self) -> WalkResult:
        """Return the result with the interval of every row, not of the first 50 alone.

        Each takes about ten milliseconds.
        """
        return walk_result(with_intervals(self, self.trials_kept), self.trials_kept)

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(conclusion(self))}</b></p>{self.table()._repr_html_()}"

    def __eq__(self, other: object) -> bool:
        """Compare what was found, whatever it was read from."""
        if not isinstance(other, WalkerData):
            return NotImplemented
        return msgspec.structs.astuple(self) == msgspec.structs.astuple(other)

    __hash__ = WalkerData.__hash__


class LiveResult(LiveData, frozen=True, kw_only=True):
    """A live run's data."""

    def plot(self) -> Column:
        """Return a Bokeh figure: when it held what, and the sum of profits.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
        """
        from backtest_kit._pages.figure import live_figure

        return live_figure([self])

    def report(self, path: str | Path) -> Path:
        """Write the run as one self-contained HTML page, and return its path.

        Raises:
            BacktestKitError: Bokeh is missing (the extra `report`).
            OSError: the file can't be written.
        """
        from backtest_kit._pages.live_page import live_page
        from backtest_kit._pages.page import write_page

        return write_page(live_page([self]), path)


def backtest_result(data: BacktestData, engine: Engine, exchange: ExchangeSchema) -> BacktestResult:
    """Return a backtest's data as a result whose candles come from `exchange`."""
    result = BacktestResult(**msgspec.structs.asdict(data))
    vars(result)["source"] = _Source(weakref.ref(engine), exchange)
    return result


def walk_result(data: WalkerData, trials: Sequence[TrialResult]) -> WalkResult:
    """Return a walk's ranking as a result, with its trials."""
    result = WalkResult(**msgspec.structs.asdict(data))
    vars(result)["trials_kept_"] = tuple(trials)
    return result


def live_result(data: LiveData) -> LiveResult:
    """Return a live run's data as a result."""
    return LiveResult(**msgspec.structs.asdict(data))
