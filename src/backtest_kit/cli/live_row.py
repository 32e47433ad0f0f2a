"""One live run as a row of cells: its state, its distances, its health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from backtest_kit._reports.table import minutes, number, price
from backtest_kit._values.results import Tick
from backtest_kit._values.signal import NEVER, SignalRow, expires_at
from backtest_kit._values.time import MINUTE

_LONGEST: Final = 400
#: A run is late when its newest step is older than its base interval and this many ms.
_LATE_AFTER: Final = 30_000
STYLES: Final = {"active": "bold cyan", "waiting": "yellow", "idle": "dim", "starting": "dim"}
Cells = dict[str, tuple[Text, Text]]


@dataclass(slots=True)
class Row:
    """What is known of one live run; `last_step` and `base` (its base interval) in milliseconds."""

    symbol: str
    strategy_name: str
    exchange_name: str
    state: str = "starting"
    signal: SignalRow | None = None
    price: float | None = None
    revenue: float | None = None
    trades: int = 0
    pnl: float = 0.0
    reported: Tick | None = None
    last_step: int | None = None
    missed: int = 0
    errors: int = 0
    last_error: str | None = None
    base: int = MINUTE

    def late(self, now: int) -> bool:
        """Say whether the newest step is too old."""
        return self.last_step is not None and now - self.last_step >= self.base + _LATE_AFTER

    def trouble(self, now: int) -> bool:
        """Say whether the run is late, has missed steps or met errors."""
        return self.late(now) or self.missed > 0 or self.errors > 0

    def rank(self, now: int) -> int:
        """Living rows come first, then those in trouble."""
        order = {"active": 0, "waiting": 1}
        return order.get(self.state, 2 if self.trouble(now) else 3)


def cells_of(row: Row, now: int, await_ms: int) -> Cells:
    """Return a row's cells, each in full and short."""
    signal = row.signal
    profit = "" if row.revenue is None else percent(row.revenue)
    side = "" if signal is None else signal.position
    closed = percent(row.pnl)
    health, short_health, colour = _health(row, now)
    texts: dict[str, tuple[str, str, str]] = {
        "Symbol": (one_line(row.symbol, 24), one_line(row.symbol, 12), ""),
        "Strategy": (one_line(row.strategy_name, 24), one_line(row.strategy_name, 10), ""),
        "Exchange": (one_line(row.exchange_name, 24), one_line(row.exchange_name, 10), ""),
        "State": (row.state, row.state.removesuffix("ing"), STYLES[row.state]),
        "Side": (side, side[:1].upper(), ""),
        "Price": (*_prices(row.price), ""),
        "Entry": (*_prices(None if signal is None else signal.price_open), ""),
        "Distance %": (*_distance(row), ""),
        "Profit %": (profit, profit, colour_of(row.revenue or 0)),
        "Left": (*_left(row, now, await_ms), ""),
        "Closed": (f"{row.trades}, {closed} %", f"{row.trades} {closed}", colour_of(row.pnl))
        if row.trades
        else ("0", "0", "dim"),
        "Health": (health, short_health, colour),
    }
    return {name: (text_of(full, s), text_of(short, s)) for name, (full, short, s) in texts.items()}


def _prices(value: float | None) -> tuple[str, str]:
    if value is None:
        return "", ""
    if not 1e-4 <= abs(value) < 1e9:
        return price(value), f"{value:.4g}"
    return price(value), f"{value:.0f}" if abs(value) >= 1e5 else price(float(f"{value:.6g}"))


def _distance(row: Row) -> tuple[str, str]:
    """How far the average price is from the levels, in percent of itself; below 0: beyond."""
    signal, now = row.signal, row.price
    if signal is None or not now:
        return "", ""
    up = 1 if signal.position == "long" else -1
    if row.state == "waiting":
        entry = f"entry {number((now - signal.price_open) / now * 100 * up)}"
        return entry, entry
    goal, stop = signal.price_take_profit, signal.price_stop_loss
    profit = "none" if goal is None else number((goal - now) / now * 100 * up)
    loss = "none" if stop is None else number((now - stop) / now * 100 * up)
    return f"TP {profit:>5}  SL {loss:>5}", f"{profit}/{loss}"


def _left(row: Row, now: int, await_ms: int) -> tuple[str, str]:
    signal = row.signal
    if signal is None:
        return "", ""
    pending = row.state == "active" and signal.pending_at is not None
    end = expires_at(signal) if pending else signal.scheduled_at + await_ms
    if end == NEVER:
        return "no end", "no end"
    left = -((now - end) // MINUTE)  # a minute that has begun counts
    if left <= 0:
        return "due", "due"
    hours, rest = divmod(left, 60)
    return minutes(left), f"{hours}h{rest:02}" if hours else f"{rest}min"


def _health(row: Row, now: int) -> tuple[str, str, str]:
    """Say how the feed of a run is: in full, the worst of it, and its colour."""
    bad = [f"{n} {what}" for n, what in ((row.errors, "errors"), (row.missed, "missed")) if n]
    bad = [text.removesuffix("s") if text == "1 errors" else text for text in bad]
    colour = "red" if row.errors else "yellow" if row.missed else "green"
    if row.last_step is None:
        return ", ".join(bad) or "no step yet", bad[0] if bad else "no step", colour if bad else ""
    age = max(now - row.last_step, 0)
    if row.late(now):
        late = f"late {minutes(age / MINUTE)}"
        return ", ".join((late, *bad)), late, "red"
    ago = f"{age // 1000} s"
    if bad:
        return f"{', '.join(bad)}, {ago} ago", bad[0], colour
    return f"ok, {ago} ago", f"ok {ago}", colour


def percent(value: float, unit: str = "") -> str:
    """Return a percentage with its sign."""
    return ("+" if round(value, 2) > 0 else "") + number(value, 2, unit)


def colour_of(value: float) -> str:
    """Return the colour of a profit."""
    return "green" if value > 0 else "red" if value < 0 else ""


def text_of(text: str = "", style: str = "") -> Text:
    """Return text that is never wrapped."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return text on one line, without what would steer a terminal."""
    flat = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text[:_LONGEST])
    line = " ".join(flat.split())
    return line if cell_len(line) <= longest else set_cell_size(line, longest - 1) + "…"
