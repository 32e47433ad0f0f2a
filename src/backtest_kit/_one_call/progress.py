"""How far a run has come, in a notebook or on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any, Final

from backtest_kit._engine.bus import Channel
from backtest_kit._engine.engine import Engine
from backtest_kit._values.clock import stopwatch

#: A run that is over sooner shows nothing, in milliseconds; and how often a bar is drawn.
_PATIENCE: Final = 500.0
_PAUSE: Final = 100.0


@contextmanager
def progress(engine: Engine, channel: Channel, title: str, unit: str) -> Iterator[None]:
    """Show the events of a progress channel as a bar; nothing in a pipe, or where a run is short.

    `unit` is what an event counts: "frames" or "strategies".
    """
    draw: _Bar
    if _in_notebook():
        draw = _NotebookBar(title, unit)
    elif sys.stderr.isatty():
        draw = _TerminalBar(title, unit)
    else:
        yield
        return
    began, drawn = stopwatch(), 0.0

    def update(event: Any) -> None:
        nonlocal drawn
        now = stopwatch() - began
        done, total = getattr(event, f"processed_{unit}"), getattr(event, f"total_{unit}")
        if now >= _PATIENCE and (now - drawn >= _PAUSE or done == total):
            drawn = now
            draw(done, total)

    unsubscribe = engine.bus.listen(channel, update)
    try:
        yield
    finally:
        unsubscribe()
        draw.close()


class _Bar:
    """Draws a bar, again and again, in one place."""

    def __call__(self, done: int, total: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Leave the bar as it is."""


class _NotebookBar(_Bar):
    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = escape(title), unit
        self._handle: Any = None

    def __call__(self, done: int, total: int) -> None:
        ipython: Any = import_module("IPython.display")
        bar = ipython.HTML(
            f'<label>{self._title} <progress value="{done}" max="{total}"></progress> '
            f"{done:,} of {total:,} {self._unit}</label>"
        )
        if self._handle is None:
            self._handle = ipython.display(bar, display_id=True)
        else:
            self._handle.update(bar)


class _TerminalBar(_Bar):
    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bars is None:
            self._bars = self._begin(total)
        self._bars.update(self._task, completed=done)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _begin(self, total: int) -> Any:
        from rich import progress as rich
        from rich.console import Console
        from rich.markup import escape as plain

        bars = rich.Progress(
            rich.TextColumn(plain(self._title)),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn(self._unit),
            rich.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        bars.start()
        self._task = bars.add_task("", total=total)
        return bars


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
