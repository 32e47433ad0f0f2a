"""Steps of managed positions: what the candle does, then what `manage` decides.

In an account, a step waits for its turn where it does anything. At one instant positions that close
something come first, with all of their step, and free what the others may need.
"""

from __future__ import annotations

from backtest_kit._backtest.telling import tell_actions
from backtest_kit._engine.asking import ask_manage, manage_failed
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import CLOSES, HOLDS
from backtest_kit._rules.actions import act_in_turn, position_of
from backtest_kit._rules.asking import is_due, next_due_after
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import Holding, Managed, step_managed
from backtest_kit._values import actions
from backtest_kit._values.signal import NEVER
from backtest_kit._values.time import INTERVALS


class Managing:
    """Does the steps of one run's positions; its data end at `end` (ms) at the latest."""

    def __init__(self, run: Run, base: int, end: int) -> None:
        self._run = run
        self._base = base
        self._end = end
        self._interval = INTERVALS[run.strategy.manage_interval]
        self._at_close = run.config.ask_at == "close"
        #: Whether the strategy is asked while a position is open.
        self.is_used = run.strategy.manage is not None

    def next_after(self, after: int, asked_at: int | None) -> int:
        """Return the next step at which `manage` may be due, in milliseconds."""
        if not self.is_used:
            return NEVER
        return next_due_after(after, asked_at, self._interval, self._base, at_close=self._at_close)

    def is_asked(self, when: int, asked_at: int | None) -> bool:
        """Say whether `manage` is asked at a step, but not where the data end with the frame."""
        return (
            self.is_used
            and when != self._end
            and is_due(when, asked_at, self._interval, self._at_close)
        )

    async def step(self, holding: Holding, bar: Bar, *, ends: bool) -> Managed:
        """Return a position after the candle of a later step.

        `ends`: it closes at this step, whatever the candle does.
        """
        account, config = self._run.account, self._run.config
        stepped = step_managed(holding, bar, config)
        if account is None or (
            stepped.holding.has_acted == holding.has_acted and stepped.close is None and not ends
        ):
            return stepped
        # whether it closes anything may hang on what is free: asked again at each turn
        await account.wait(bar.when, CLOSES)
        funded = account.funded(holding, bar.when)
        stepped = step_managed(funded, bar, config)
        ends = ends or stepped.close is not None
        if not ends and stepped.holding.exits_acted == holding.exits_acted:
            await account.wait(bar.when, HOLDS)
            funded = account.funded(holding, bar.when)
            stepped = step_managed(funded, bar, config)
        account.book(funded, stepped.holding, bar.when)
        return stepped

    async def ask(self, holding: Holding, bar: Bar, *, closes: bool) -> Managed:
        """Ask `manage` about a position, and do what it answers, in order.

        `closes`: the position closes something at this step already.
        """
        run, account = self._run, self._run.account
        if account is not None:  # no earlier than the candle, if that has entered
            await account.wait(bar.when, CLOSES)
        answer = await ask_manage(run, position_of(holding, bar), bar.when)
        if not answer:
            return Managed(holding, None)
        if account is not None:
            if not closes and not any(isinstance(each, actions.Close) for each in answer):
                await account.wait(bar.when, HOLDS)
            holding = account.funded(holding, bar.when)
        done, refused = act_in_turn(holding, answer, bar, run.config, "manage")
        managed = done[-1].managed if done else Managed(holding, None)
        if account is not None:
            account.book(holding, managed.holding, bar.when)
        await tell_actions(run, done, bar)
        for error in refused:
            await manage_failed(run, error)
        if managed.holding.minutes != holding.minutes:
            run.risk_gate.extend(managed.holding.expires_at)
        return managed
