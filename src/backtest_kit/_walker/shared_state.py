"""What trials share without meaning to: state that one changes and another one reads.

Their figures would depend on the order of the trials. Within a process a run finds it by itself
(`leftovers`). A worker has copies, of which the others see nothing: it says what a trial has
changed, and where that was in the code, and here, where the strategies were made, it is found who
else holds the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backtest_kit._engine.fresh import begin
from backtest_kit._engine.leftovers import Leftovers, StateKey, any_changes
from backtest_kit._values.errors import BacktestKitError, StrategyFailedError
from backtest_kit._values.schemas import StrategySchema

_REMEDY = "Give each run its own with make=; what is only remembered can be kept by functools.cache"


def began_with_others(name: str, found: Iterable[tuple[str, str]]) -> StrategyFailedError:
    """Return the error of a strategy that began with what others changed: (what, by whom)."""
    what = ", ".join(f"{label} (by {by!r})" for label, by in found)
    error = StrategyFailedError(
        f"strategy {name!r} began with what a run of another strategy had changed: {what}; its "
        f"figures would depend on the order of the trials. {_REMEDY}"
    )
    error.began_with_others = True
    return error


def changed_for_others(name: str, labels: Iterable[str]) -> StrategyFailedError:
    """Return the error of a strategy that changed what a module holds."""
    return StrategyFailedError(
        f"strategy {name!r} changed what other strategies see: {', '.join(labels)}; figures would "
        f"depend on the order of the trials. {_REMEDY}"
    )


class SharedState:
    """What trials in workers have changed, of the state that the strategies have in this process.

    `judge` and `note` are called for one strategy after another, in the order of the trials.
    """

    def __init__(self) -> None:
        #: By whom a piece of state was changed last.
        self._by: dict[StateKey, str] = {}
        #: What the keys are of must live on, or they would mean something else.
        self._kept: list[Leftovers] = []

    def judge(self, strategy: StrategySchema) -> StrategyFailedError | None:
        """Return the error of a strategy that holds what an earlier trial has changed."""
        if not self._by and not any_changes():
            return None
        state = self._state_of(strategy)
        if state is None:
            return None
        left = [
            (part.label, by)
            for key, part in state.begun.items()
            if (by := self._by.get(key, strategy.name)) != strategy.name
        ]
        found = dict.fromkeys((*state.of_others, *left))
        return began_with_others(strategy.name, found) if found else None

    def note(self, strategy: StrategySchema, changed: Sequence[str]) -> None:
        """Take what a trial has changed, by its places (`Leftovers.changed`)."""
        state = self._state_of(strategy) if changed else None
        if state is None:
            return
        self._kept.append(state)
        for key, part in state.begun.items():
            if part.place in changed:
                self._by[key] = strategy.name

    def _state_of(self, strategy: StrategySchema) -> Leftovers | None:
        try:
            begun = begin(strategy)
        except BacktestKitError:  # which its trial has raised
            return None
        asked = begun.strategy.get_signal or begun.strategy.get_signals
        assert asked is not None
        return Leftovers(asked, begun.strategy.manage, made=begun.made, name=strategy.name)
