"""A trial of a search between the question to Optuna and the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.schemas import StrategySchema


@dataclass(eq=False, slots=True)
class Candidate:
    """A trial that Optuna has asked for, and what has come of it.

    `judged` is the part up to which a pruner has let it pass, `reported` the parts of which Optuna
    knows the metric, `seen` what it was after each.
    """

    trial: Any
    sampler: Any
    schema: StrategySchema | None
    judged: int = 0
    reported: frozenset[int] = frozenset()
    seen: dict[int, float | None] = field(default_factory=dict)
    result: TrialResult | None = None
    why: str | None = None
    pruned: bool = False

    @property
    def lives(self) -> bool:
        """Whether it has neither failed nor been pruned."""
        return self.why is None and not self.pruned
