"""The own state of a live run's strategy, as it is stored with each step."""

from __future__ import annotations

from typing import Any

import msgspec

from backtest_kit._engine.engine import describe
from backtest_kit._engine.run import Run
from backtest_kit._values.errors import StateError


class OwnState:
    """What the strategy has saved, and the sequence before which it knows of all transitions.

    What is stored is never the state within a callback, and says what the strategy knows of: a
    transition that is told again after a crash does not change that state a second time.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.value: Any = None
        self.sequence = 0

    def begin(self, value: Any, sequence: int) -> None:
        """Go on from what is stored; raises as `load`."""
        self.value, self.sequence = value, sequence
        self.load()
        self.value = self.saved()

    def keep(self, value: Any, sequence: int) -> None:
        """Note what has been stored."""
        self.value, self.sequence = value, sequence

    def know(self, sequence: int) -> None:
        """Note that the strategy has been told of all transitions before `sequence`."""
        self.value, self.sequence = self.saved(), sequence

    def saved(self) -> Any:
        """Return the strategy's own state as it will be read back; the last one if that fails."""
        own = self._run.own
        if own is None:
            return self.value
        try:
            return msgspec.json.decode(msgspec.json.encode(own.save()))
        except Exception as error:  # noqa: BLE001 - user code
            self._run.error("save", error)
            return self.value

    def load(self) -> None:
        """Let the strategy go on from the state that was noted last.

        Raises:
            StateError: its `load` raised.
        """
        own = self._run.own
        if own is None or self.value is None:
            return
        try:
            own.load(self.value)
        except Exception as error:
            raise StateError(
                f"strategy {self._run.strategy_name!r} can't load its own state: "
                f"{describe(error)}; mend its load, or delete the run's state"
            ) from error
