"""What commands keep of runs: a folder for each, with its page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from backtest_kit._engine.engine import Engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.live_page import live_page
from backtest_kit._pages.market import load_market, sensitivity_of, stop_paths_of
from backtest_kit._pages.page import require_bokeh
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._reports.backtest import BacktestData, backtest_data
from backtest_kit._reports.facade import Heat, Partial, Risk, Schedule
from backtest_kit._reports.live import LiveData
from backtest_kit._reports.managed import uses_rules
from backtest_kit._reports.run_folder import keep_run, keep_walk
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._statistics.sensitivity import Sensitivity, sensitivity
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError

#: A run's page, in its folder.
PAGE: Final = "report.html"


class Kept(NamedTuple):
    """A backtest in its folder, and what its profit depends on; `files` are worth a look."""

    data: BacktestData
    depends: Sensitivity
    folder: Path
    files: tuple[str, ...]


def keep_backtests(
    engine: Engine, root: Path, started_at: int, source: str, *, html: bool
) -> list[Kept]:
    """Write a folder for each backtest of the engine; a Ctrl-C meanwhile leaves pages out.

    `source` is the file of the strategies, which says more than the text of a function alone.

    Raises:
        OSError: a file can't be written.
    """
    records = engine.records.all()
    kept = []
    for record in records:
        data, more = backtest_data(record), _look_back(record, records)
        data = msgspec.structs.replace(data, source=source or data.source)
        exchange = engine.exchanges.get(record.exchange_name)
        depends: Sensitivity | None = None
        try:
            market = load_market(engine, exchange, data)
            if html or uses_rules(data.signals):
                depends = sensitivity_of(data, market)
            if html:
                candles = None if market is None else market.candles
                stops = stop_paths_of(data, market)
                more[PAGE] = backtest_page(data, candles, depends, stops).encode()
            elif depends is None and market is not None:  # what takes no replays
                settings = data.settings or engine.config
                depends = sensitivity(data.signals, (), settings, None, market.held)
        except KeyboardInterrupt:
            html = False
        depends = depends or sensitivity_of(data, None)
        folder = keep_run(data, root, started_at, more, depends)
        kept.append(
            Kept(
                data,
                depends,
                folder,
                tuple(name for name in more if name != PAGE),
            )
        )
    return kept


def _look_back(record: RunRecord, records: Sequence[RunRecord]) -> dict[str, bytes]:
    """Return the other reports on a run that are not empty, by the names of their files.

    The heat is of all runs of its strategy together.
    """
    names = {"strategy_name": record.strategy_name}
    which = names | {"exchange_name": record.exchange_name, "frame_name": record.frame_name}
    together = sum(other.strategy_name == record.strategy_name for other in records) > 1
    texts = {
        "heat.md": Heat.get_report(**names) if together else "",
        "schedule.md": Schedule.get_report(record.symbol, **which) if record.waited else "",
        "partial.md": Partial.get_report(record.symbol, **which) if record.partials else "",
        "risk.md": Risk.get_report(record.symbol, **which) if record.rejections else "",
    }
    return {name: text.encode() for name, text in texts.items() if text}


def keep_a_walk(
    data: WalkerData,
    trials: Sequence[TrialResult],
    settings: Config,
    root: Path,
    started_at: int,
    *,
    html: bool,
) -> Path:
    """Write the folder of a walk, and return it; raises as above."""
    more = {PAGE: walk_page(data, trials).encode()} if html else {}
    return keep_walk(data, trials, settings, root, started_at, more)


def can_make_pages() -> str:
    """Return why no page can be made; "" where one can."""
    try:
        require_bokeh()
    except BacktestKitError as error:
        return f"page: none; {error}"
    return ""


def page_lines(folders: Iterable[Path]) -> list[str]:
    """Return a line for each page that is there."""
    return [f"page: {folder / PAGE}" for folder in folders if (folder / PAGE).exists()]


def page_of(data: BacktestData | LiveData | WalkerData) -> str:
    """Return the page of data that were read from a file: without candles and curves.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    if isinstance(data, BacktestData):
        return backtest_page(data)
    return walk_page(data) if isinstance(data, WalkerData) else live_page([data])
