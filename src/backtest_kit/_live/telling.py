"""What a live run tells of a transition that is stored, and whom."""

from __future__ import annotations

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.run import Run
from backtest_kit._live.callbacks import Callbacks
from backtest_kit._live.transitions import Transitions
from backtest_kit._state.documents import Transition


async def tell(
    run: Run,
    entry: Transition,
    callbacks: Callbacks | None,
    untold: Transitions,
    *,
    own: bool,
    others: bool,
) -> None:
    """Tell of a transition: `own` methods of the strategy, which are part of it, and `others`.

    The strategy's own methods are called here, in order, before anything else is done. Others
    are called here only where the run waits for them (no `callbacks`): then it is not `untold` any
    more.
    """
    event = entry.event
    if others:
        run.announce(event)
    else:
        current_moment.set(Moment(run, event.timestamp))
    for name, function in run.callbacks_for(event):
        mine = run.is_own(function)
        if own if mine else others and callbacks is None:
            await run.guarded(f"callback {name}", function, event)
    for listener in [*run.engine.named_listeners.values()]:
        listener.wake()
    if callbacks is not None:
        callbacks.wake()
    elif others:
        untold.done(entry)
