"""Runs side by side: what changed in settings and code, and which trades came, went or changed."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from backtest_kit._reports.backtest import BacktestData
from backtest_kit._reports.run_folder import KeptPortfolio
from backtest_kit._reports.table import markdown_table, number, plain, price, span
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickClosed
from backtest_kit._values.table import Table, Tabular, table_of
from backtest_kit._values.time import iso

Change = Literal["came", "went", "changed"]
#: Changes that a report shows; the data have all.
_SHOWN: Final = 100
_COMPARED: Final[tuple[tuple[str, Callable[[TickClosed], Any]], ...]] = (
    ("entry", lambda tick: tick.pnl.price_open),
    ("exit", lambda tick: tick.pnl.price_close),
    ("close reason", lambda tick: tick.close_reason),
    ("time of the close", lambda tick: tick.close_timestamp),
    ("take-profit", lambda tick: tick.signal.price_take_profit),
    ("stop-loss", lambda tick: tick.signal.price_stop_loss),
    ("number of fills", lambda tick: len(tick.fills) or 2),
    ("cost", lambda tick: tick.cost),
    ("profit", lambda tick: tick.pnl.pnl_percentage),
)


class ChangedValue(msgspec.Struct, frozen=True):
    """A setting, or another fact of a run, that differs; as text."""

    name: str
    before: str
    after: str


class ChangedTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade that only one of two runs has, or that both have and that differs.

    It is known by its side and by when it was proposed (`scheduled_at`, milliseconds UTC). Profits
    are in percent, `None` where the run has no such trade. `why` says what differs.
    """

    change: Change
    scheduled_at: int
    position: str
    pnl_before: float | None
    pnl_after: float | None
    why: str


class Differences(Tabular, frozen=True, kw_only=True):
    """What differs between two runs.

    `total_before` + `came` - `went` + `changed` = `total_after`, up to rounding: sums of profits in
    percent. `code` is a unified diff of the strategies' source.
    """

    before: str
    after: str
    values: tuple[ChangedValue, ...]
    code: str
    trades_before: int
    trades_after: int
    unchanged: int
    total_before: float
    total_after: float
    came: float
    went: float
    changed: float
    trades: tuple[ChangedTrade, ...]

    def table(self) -> Table:
        """Return the trades that differ as columns."""
        return table_of(self.trades, ChangedTrade, "changed trades")


def differences(before: BacktestData, after: BacktestData) -> Differences:
    """Return what differs between two backtests.

    Trades are the same if they are of one side and were proposed at one instant.
    """
    old, new = _by_proposal(before.signals), _by_proposal(after.signals)
    found: list[ChangedTrade] = []
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if one is None and other is not None:
            found.append(_change("came", key, one, other, _why_absent(key[0], before)))
        elif other is None and one is not None:
            found.append(_change("went", key, one, other, _why_absent(key[0], after)))
        elif one is not None and other is not None and (why := _what_differs(one, other)):
            found.append(_change("changed", key, one, other, why))
    sums = {
        kind: sum(_effect(t) for t in found if t.change == kind) for kind in ("came", "changed")
    }
    return Differences(
        before=_title(before),
        after=_title(after),
        values=tuple(_values(before, after)),
        code="".join(
            difflib.unified_diff(
                before.source.splitlines(keepends=True),
                after.source.splitlines(keepends=True),
                before.strategy_name,
                after.strategy_name,
            )
        ),
        trades_before=len(old),
        trades_after=len(new),
        unchanged=len(old.keys() & new.keys()) - sum(t.change == "changed" for t in found),
        total_before=sum(t.pnl.pnl_percentage for t in before.signals),
        total_after=sum(t.pnl.pnl_percentage for t in after.signals),
        came=sums["came"],
        went=-sum(_effect(t) for t in found if t.change == "went"),
        changed=sums["changed"],
        trades=tuple(found),
    )


def differences_report(runs: Sequence[BacktestData]) -> str:
    """Return two or more backtests side by side as Markdown: each against the first."""
    first, *others = runs
    names = ["", *(plain(_title(run)) for run in runs)]
    parts = ["# Runs compared", markdown_table(names, _figures(runs))]
    for other in others:
        found = differences(first, other)
        parts += [f"## {plain(found.after)} against {plain(found.before)}", *_sections(found)]
    return "\n\n".join(parts) + "\n"


def _sections(found: Differences) -> list[str]:
    parts = []
    if found.values:
        rows = [(value.name, value.before, value.after) for value in found.values]
        parts.append(markdown_table(("What changed", "Before", "After"), rows))
    if found.code:
        parts.append(f"```diff\n{found.code.rstrip()}\n```")
    if not (found.values or found.code):
        parts.append("Settings and code are the same.")
    counts = {kind: sum(t.change == kind for t in found.trades) for kind in ("came", "went")}
    changed = len(found.trades) - counts["came"] - counts["went"]
    rows2 = [
        ("Before", found.trades_before, number(found.total_before, 2, " %")),
        ("Came", counts["came"], number(found.came, 2, " %")),
        ("Went", counts["went"], number(-found.went, 2, " %")),
        ("Changed", changed, number(found.changed, 2, " %")),
        ("After", found.trades_after, number(found.total_after, 2, " %")),
    ]
    parts.append(markdown_table(("Trades", "Count", "Total profit"), rows2))
    telling = [t for t in found.trades if t.change != "changed" or t.pnl_before != t.pnl_after]
    if telling:
        columns = ("Proposed", "Side", "Change", "Before", "After", "Why")
        shown = [
            (
                iso(t.scheduled_at),
                t.position,
                t.change,
                number(t.pnl_before, 3, " %") if t.pnl_before is not None else "",
                number(t.pnl_after, 3, " %") if t.pnl_after is not None else "",
                t.why,
            )
            for t in telling[:_SHOWN]
        ]
        parts.append(markdown_table(columns, shown))
    left = len(found.trades) - min(len(telling), _SHOWN)
    if left:
        silent = len(found.trades) - len(telling)
        what = f"; of {silent:,} the profit is the same" if silent else ""
        parts.append(f"{left:,} more changed, which the data have{what}.")
    return parts


def _figures(runs: Sequence[BacktestData]) -> list[list[str]]:
    rows = {
        "Range": [span(run.since, run.until) for run in runs],
        "Trades": [f"{run.statistics.total_signals:,}" for run in runs],
        "Win rate": [number(run.statistics.win_rate, 1, " %") for run in runs],
        "Average profit": [number(run.statistics.avg_pnl, 3, " %") for run in runs],
        "Total profit": [number(run.statistics.total_pnl, 2, " %") for run in runs],
        "Sharpe ratio": [number(run.statistics.sharpe_ratio, 3) for run in runs],
        "Max drawdown": [number(run.statistics.max_drawdown_percent, 2, " %") for run in runs],
        "Profit factor": [number(run.statistics.profit_factor, 2) for run in runs],
    }
    return [[name, *values] for name, values in rows.items()]


def _by_proposal(closed: Sequence[TickClosed]) -> dict[tuple[int, str], TickClosed]:
    return {(tick.signal.scheduled_at, tick.signal.position): tick for tick in closed}


def _change(
    change: Change,
    key: tuple[int, str],
    before: TickClosed | None,
    after: TickClosed | None,
    why: str,
) -> ChangedTrade:
    return ChangedTrade(
        change=change,
        scheduled_at=key[0],
        position=key[1],
        pnl_before=None if before is None else before.pnl.pnl_percentage,
        pnl_after=None if after is None else after.pnl.pnl_percentage,
        why=why,
    )


def _effect(trade: ChangedTrade) -> float:
    return (trade.pnl_after or 0.0) - (trade.pnl_before or 0.0)


def _why_absent(when: int, run: BacktestData) -> str:
    """Return why a run has no trade that was proposed at `when`, as far as its trades say."""
    if not run.since <= when <= run.until:
        return "outside of the run's range"
    starts = [tick.signal.scheduled_at for tick in run.signals]
    place = bisect_right(starts, when) - 1
    if place >= 0 and when < run.signals[place].close_timestamp:
        return f"the trade proposed at {iso(starts[place])} was still open"
    if place >= 0 and when == starts[place]:
        return "another side was proposed"
    return "not proposed, refused, or never filled"


def _what_differs(before: TickClosed, after: TickClosed) -> str:
    found = []
    for name, get in _COMPARED:
        one, other = get(before), get(after)
        if one != other:
            found.append(f"{name} {_text(name, one)} -> {_text(name, other)}")
    return ", ".join(found)


def _text(name: str, value: Any) -> str:
    if name == "profit":
        return number(value, 3, " %")
    if isinstance(value, int):
        return iso(value)
    return price(value) if isinstance(value, float) else str(value)


def _values(before: BacktestData, after: BacktestData) -> list[ChangedValue]:
    """Return the settings and names that differ."""
    found = []
    for field in ("symbol", "strategy_name", "exchange_name", "frame_name"):
        one, other = getattr(before, field), getattr(after, field)
        if one != other:
            found.append(ChangedValue(field, str(one), str(other)))
    ranges = [span(run.since, run.until) for run in (before, after)]
    if ranges[0] != ranges[1]:
        found.append(ChangedValue("range", *ranges))
    if before.settings is not None and after.settings is not None:
        one, other = (msgspec.structs.asdict(run.settings) for run in (before, after))  # type: ignore[arg-type]
        found += [
            ChangedValue(name, str(one[name]), str(other[name]))
            for name in one
            if one[name] != other[name]
        ]
    return found


def _title(run: BacktestData) -> str:
    return f"{run.strategy_name} on {run.symbol}"


def portfolios_report(runs: Sequence[tuple[str, KeptPortfolio, Config | None]]) -> str:
    """Return the figures of accounts side by side, as Markdown, under their names.

    Below them the terms and settings that differ.
    """
    names = [plain(name) for name, _, _ in runs]
    figures = [run.statistics.table() for _, run, _ in runs]
    rows = [
        (statistic, *(number(float(figure["value"][i]), 4) for figure in figures))
        for i, statistic in enumerate(figures[0]["statistic"].tolist())
    ]
    terms = [run.account | (msgspec.to_builtins(settings) or {}) for _, run, settings in runs]
    spans = [{"range": span(run.since, run.until)} for _, run, _ in runs]
    differ = [
        (plain(key), *(_text(key, each.get(key)) for each in found))
        for found in (terms, spans)
        for key in dict.fromkeys(key for each in found for key in each)
        if any(each.get(key) != found[0].get(key) for each in found)
    ]
    text = f"# Accounts side by side\n\n{markdown_table(('Figure', *names), rows)}\n"
    if not differ:
        return f"{text}\nTerms, settings and range are the same.\n"
    return f"{text}\n## Run with\n\n{markdown_table(('', *names), differ)}\n"
