"""Who runs the trials of a walk: the interface, and the runner in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Literal, Protocol

from backtest_kit._statistics.trial_result import OtherTrial, TrialResult
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._walker.trial import PARTS, TrialSetup, run_trial

#: What runs trials in parallel: processes of our own, or any executor.
Workers = Executor | Literal["processes"]


class TrialRunner(Protocol):
    """Runs the trials of some strategies, which a walk asks for one after another, in order."""

    @property
    def already_known(self) -> int:
        """How many of the trials are not run, since their results are stored."""
        ...

    async def open(self) -> None:
        """Prepare to run. What this raises ends the walk: it is not the fault of one strategy."""
        ...

    async def run(self, index: int) -> TrialResult:
        """Return the result of a strategy's trial; raises what the trial raised."""
        ...

    async def close(self) -> None:
        """Cancel what is still running, and release all resources."""
        ...

    def variants_tried(self) -> int | None:
        """Return how many variants were ever tried on these data; `None` if that is not stored."""
        ...

    def others_tried(self) -> Sequence[OtherTrial]:
        """Return the trades of those that this walk did not run, as far as they are stored."""
        ...


class GrowingRunner(TrialRunner, Protocol):
    """A runner that takes more trials while it is open, as a search finds out about them."""

    def add(self, strategies: Sequence[StrategySchema], parts: int = PARTS) -> range:
        """Take trials over the first `parts` of the frame; return their indices for `run`."""
        ...


class InProcessRunner:
    """Runs trials in this process, each when it is asked for."""

    already_known: int = 0

    def __init__(self, setup: TrialSetup, strategies: Sequence[StrategySchema] = ()) -> None:
        self._setup = setup
        self._trials = [(strategy, PARTS) for strategy in strategies]

    async def open(self) -> None:
        """Do nothing: there is nothing to prepare."""

    def add(self, strategies: Sequence[StrategySchema], parts: int = PARTS) -> range:
        """Take trials over the first `parts` of the frame; return their indices for `run`."""
        first = len(self._trials)
        self._trials += [(strategy, parts) for strategy in strategies]
        return range(first, len(self._trials))

    async def run(self, index: int) -> TrialResult:
        """Run a trial and return its result; raises as `run_trial`."""
        return await run_trial(self._setup, *self._trials[index])

    async def close(self) -> None:
        """Do nothing: no trial outlives its call."""

    def variants_tried(self) -> None:
        """Return `None`: nothing is stored."""

    def others_tried(self) -> Sequence[OtherTrial]:
        """Return none: nothing is stored."""
        return ()


def check_workers(executor: object) -> None:
    """Raise TypeError if nothing can be run by this."""
    if executor is not None and executor != "processes" and not isinstance(executor, Executor):
        raise TypeError(
            f'executor={executor!r} must be "processes", a concurrent.futures.Executor, or None'
        )
