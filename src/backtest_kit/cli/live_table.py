"""What a person sees while live runs go on: a table of them, their log, one plain line each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from backtest_kit._reports.table import number, price
from backtest_kit._rules.profit import revenue_percent
from backtest_kit._values.results import (
    Tick,
    TickActive,
    TickAdded,
    TickCancelled,
    TickClosed,
    TickIdle,
    TickMoved,
    TickOpened,
    TickPartial,
    TickScheduled,
    TickWaiting,
)
from backtest_kit._values.time import MINUTE, iso, to_datetime
from backtest_kit.cli.live_row import (
    STYLES,
    Cells,
    Held,
    Row,
    cells_of,
    colour_of,
    one_line,
    percent,
    text_of,
)

#: Lines that a rendering has at most beside its rows: `max_rows` is a terminal's height less this.
OTHER_LINES: Final = 13
_SHOWN_LOG: Final = 8
#: Name, heading when narrow, least width, aligned right.
_COLUMNS: Final = (
    ("Symbol", "Symbol", 6, False),
    ("Strategy", "Strategy", 8, False),
    ("Exchange", "Exchange", 8, False),
    ("State", "State", 6, False),
    ("Side", "", 1, False),
    ("Price", "Price", 7, True),
    ("Entry", "Entry", 7, True),
    ("Target / stop", "TP/SL", 9, True),
    ("Distance %", "TP/SL %", 9, True),
    ("Profit %", "Profit", 6, True),
    ("Left", "Left", 5, True),
    ("Closed", "Closed", 7, True),
    ("Health", "Health", 7, False),
)
#: What gives way on a narrow terminal, first to last: a shorter cell (True), or the whole column.
_GIVE_WAY: Final = (
    ("Target / stop", False),
    *((name, True) for name in ("Left", "Health", "Closed", "Price", "Entry", "Distance %")),
    *((name, True) for name in ("Strategy", "Profit %", "Side")),
    *((name, False) for name in ("Entry", "Exchange")),
    *((name, True) for name in ("State", "Symbol")),
    *((name, False) for name in ("Closed", "Left", "Price", "Distance %", "Side")),
    *((name, False) for name in ("Strategy", "Profit %")),
)


class LiveTable:
    """The state of live runs as their results arrive; `render` shows it.

    What arrives is not trusted: names, notes and errors are shown as text on one line each.
    """

    def __init__(self, schedule_await_minutes: int = 120, *, recorded: bool = False) -> None:
        """Make an empty table; `recorded`: no run is late, each shows the time of its own step."""
        self._await_ms = schedule_await_minutes * MINUTE
        self._recorded = recorded
        self._rows: dict[tuple[str, str, str], Row] = {}
        self._log: deque[tuple[int, tuple[str, str, str, str, str] | str]] = deque(
            maxlen=_SHOWN_LOG
        )
        self._error: str | None = None
        #: How much of a replay is done, 0 to 1; `None` where there is no end.
        self.done: float | None = None
        #: What the account of the runs has, as a text; "" where there is none.
        self.account = ""

    def add(self, symbol: str, strategy_name: str, exchange_name: str, base: int = MINUTE) -> None:
        """Declare a run before its first result, with its base interval in ms."""
        self._row(symbol, strategy_name, exchange_name).base = base

    def update(self, tick: Tick) -> None:
        """Take in the result of a step; a transition that is reported twice counts once."""
        row = self._row(tick.symbol, tick.strategy_name, tick.exchange_name)
        row.price = tick.current_price
        row.last_step = max(tick.timestamp, row.last_step or tick.timestamp)
        again = tick == row.reported
        match tick:
            case TickScheduled() | TickWaiting():
                row.state, row.signal = "waiting", tick.signal
                row.revenue = row.held = None
            case TickOpened() | TickActive():
                row.state, row.signal = "active", tick.signal
                row.revenue = _revenue(tick)
                if row.held is None or row.held.id != tick.signal.id:
                    row.held = Held.of(tick.signal)
            case TickAdded() | TickPartial() | TickMoved():
                row.state, row.signal = "active", tick.signal
                if row.held is None or row.held.id != tick.signal.id:
                    row.held = Held.of(tick.signal)
                row.held.take_in(tick)
            case _:
                row.state, row.signal, row.revenue, row.held = "idle", None, None, None
        if isinstance(tick, TickIdle | TickWaiting | TickActive) or again:
            return
        row.reported = tick
        if isinstance(tick, TickMoved) and tick.reason == "trailing":
            return  # it would fill the log
        if isinstance(tick, TickClosed):
            row.trades += 1
            row.pnl += tick.pnl.pnl_percentage
        entry = (one_line(row.symbol), *_transition(tick), one_line(row.strategy_name))
        self._log.append((tick.timestamp, entry))

    def feed(
        self,
        symbol: str,
        strategy_name: str,
        exchange_name: str,
        *,
        last_step: int | None,
        missed: int,
        errors: int,
        last_error: str | None,
    ) -> None:
        """Take in the health of a run: its last step in ms, and what went wrong so far."""
        row = self._row(symbol, strategy_name, exchange_name)
        if last_error is not None and (errors > row.errors or last_error != row.last_error):
            self._error = one_line(f"{symbol} {strategy_name}: {last_error}")
        if last_step is not None:
            row.last_step = max(last_step, row.last_step or last_step)
        row.missed, row.errors, row.last_error = missed, errors, last_error

    def note(self, text: str, when_ms: int) -> None:
        """Add a line to the log."""
        self._log.append((when_ms, one_line(text)))

    def render(self, now_ms: int, max_rows: int | None = None) -> LiveView:
        """Return what to show at `now_ms`; above `max_rows` runs, those with signals first.

        Later results don't change what was returned. The columns fit the width it is printed on.
        """
        rows = [*self._rows.values()]
        hidden: Sequence[Row] = ()
        if max_rows is not None and len(rows) > max_rows:
            rows.sort(key=lambda row: row.rank(self._now(row, now_ms)))
            rows, hidden = rows[: max(max_rows, 0)], rows[max(max_rows, 0) :]
        foot: list[Text] = []
        if hidden:
            states = ", ".join(_counted(hidden))
            troubled = sum(row.trouble(self._now(row, now_ms)) for row in hidden)
            trouble = f" ({troubled} in trouble)" if troubled else ""
            foot.append(text_of(f"hidden: {states}{trouble}", "dim"))
        if self._log:
            foot += [Text(), *self._log_lines(now_ms)]
        if self._error is not None:
            foot.append(text_of(f"last error: {self._error}", "red"))
        many = len({row.exchange_name for row in self._rows.values()}) > 1
        cells = tuple(cells_of(row, self._now(row, now_ms), self._await_ms) for row in rows)
        return LiveView(self._summary(now_ms), cells, tuple(foot), many)

    def _now(self, row: Row, now: int) -> int:
        return (row.last_step or now) if self._recorded else now

    def _row(self, symbol: str, strategy_name: str, exchange_name: str) -> Row:
        key = (symbol, strategy_name, exchange_name)
        return self._rows.setdefault(key, Row(*key))

    def _summary(self, now: int) -> Text:
        rows = [*self._rows.values()]
        parts = ", ".join(_counted(rows)) or "no runs yet"
        done = "" if self.done is None else f"  {self.done:.0%} done"
        text = text_of(f"{iso(now // 1000 * 1000)}{done}  {parts}")
        if trades := sum(row.trades for row in rows):
            pnl = sum(row.pnl for row in rows)
            text.append(f"; {trades} closed, ")
            text.append(percent(pnl, " %"), style=colour_of(pnl))
        if self.account:
            text.append(f"; account {self.account}")
        return text

    def _log_lines(self, now: int) -> list[Text]:
        today = to_datetime(now).date()
        moments = [to_datetime(when) for when, _ in self._log]
        form = "%H:%M" if all(m.date() == today for m in moments) else "%m-%d %H:%M"
        entries = [entry for _, entry in self._log if not isinstance(entry, str)]
        widths = [min(max(cell_len(e[i]) for e in entries), 20) for i in range(3) if entries]
        lines = []
        for moment, (_, entry) in zip(moments, self._log, strict=True):
            line = text_of().append(f"{moment:{form}}  ", style="dim")
            if isinstance(entry, str):
                line.append(entry)
            else:
                fixed = (set_cell_size(e, w) for e, w in zip(entry, widths, strict=False))
                line.append("  ".join((*fixed, *entry[3:])))
            lines.append(line)
        return lines


@dataclass(frozen=True, slots=True)
class LiveView:
    """A `LiveTable` at one instant; rich asks it for lines when it knows the width."""

    summary: Text
    rows: tuple[Cells, ...]
    foot: tuple[Text, ...]
    exchanges: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the summary, the table and the log, each line cut at the width."""
        parts: list[Table | Text] = [self.summary]
        if self.rows:
            parts.append(self._table(options.max_width))
        yield Group(*parts, *self.foot)

    def _table(self, width: int) -> Table:
        shown = {name: 0 for name, *_ in _COLUMNS if name != "Exchange" or self.exchanges}
        gap = 2
        widths = self._widths(shown)
        for name, shorten in (("", True), *_GIVE_WAY):
            if sum(widths.values()) + gap * (len(widths) - 1) <= width:
                break
            if not name:
                gap = 1
            elif shorten:
                shown[name] = 1
            else:
                shown.pop(name, None)
            widths = self._widths(shown)
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        for name, short, _, right in _COLUMNS:
            if name in shown:
                table.add_column(
                    short if shown[name] else name,
                    justify="right" if right else "left",
                    width=widths[name],
                    no_wrap=True,
                    overflow="ellipsis",
                )
        for cells in self.rows:
            table.add_row(*(cells[name][i] for name, i in shown.items()))
        return table

    def _widths(self, shown: dict[str, int]) -> dict[str, int]:
        heads = {name: ((name, short), least) for name, short, least, _ in _COLUMNS}
        return {
            name: max(
                len(heads[name][0][i]),
                heads[name][1],
                *(row[name][i].cell_len for row in self.rows),
            )
            for name, i in shown.items()
        }


def transition_line(tick: Tick) -> str:
    """Return a result as one plain line, for a pipe or a log."""
    what, at, detail = _transition(tick)
    waits = isinstance(tick, TickScheduled | TickWaiting | TickCancelled)
    who = f"{iso(tick.timestamp)} {one_line(tick.symbol)} {one_line(tick.strategy_name)}"
    return f"{who} {what} {'with entry' if waits else 'at'} {at}{detail and ', ' + detail}"


def _transition(tick: Tick) -> tuple[str, str, str]:
    """Say what happened, at which price, and the rest."""
    if isinstance(tick, TickIdle):
        return "idle", price(tick.current_price), ""
    signal = tick.signal
    levels = (
        f"take-profit {price(signal.price_take_profit)}, stop-loss {price(signal.price_stop_loss)}"
    )
    at = signal.price_open
    match tick:
        case TickOpened():
            detail = levels
        case TickScheduled() | TickWaiting():
            detail = f"average price {price(tick.current_price)}, {levels}"
        case TickActive():
            at, detail = tick.current_price, f"profit {percent(tick.revenue_percent, ' %')}"
        case TickPartial():
            note = f", {one_line(tick.note)}" if tick.note else ""
            at, detail = tick.price, f"{number(tick.share, 1, ' %')} closed, {tick.reason}{note}"
        case TickAdded():
            effective = f"effective entry {price(tick.effective_entry)}"
            at = tick.price
            detail = f"{tick.size:g} times the first entry, {effective}, {tick.reason}"
        case TickMoved():
            at = tick.current_price
            minutes = " min" if tick.what == "lifetime" else ""
            detail = f"{tick.what} to {price(tick.after)}{minutes}, {tick.reason}"
        case TickClosed():
            at = tick.pnl.price_close
            marked = ", ambiguous candle" if tick.ambiguous else ""
            gain = percent(tick.pnl.pnl_percentage, " %")
            detail = f"profit {gain}, {tick.close_reason}{marked}"
        case TickCancelled():
            detail = tick.reason
    return f"{tick.action} {signal.position}", price(at), detail


def _revenue(tick: TickOpened | TickActive) -> float:
    if isinstance(tick, TickActive):
        return tick.revenue_percent
    return revenue_percent(tick.signal.position, tick.signal.price_open, tick.current_price)


def _counted(rows: Sequence[Row]) -> list[str]:
    count = Counter(row.state for row in rows)
    return [f"{count[state]} {state}" for state in STYLES if count[state]]
