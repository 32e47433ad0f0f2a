"""How a live run takes its place in an account."""

from __future__ import annotations

from backtest_kit._engine.run import Run
from backtest_kit._live.account_gate import live_gate
from backtest_kit._rules.managed import Holding
from backtest_kit._state.documents import LiveState
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.errors import StateError


async def enter_account(
    run: Run, owner: StateOwner, state: LiveState, holding: Holding | None
) -> None:
    """Let a run go on in its account, if it has one.

    Raises:
        ArgumentError, StateError: as `LiveGate.enter`; or the run is stored in another account.
    """
    gate, part = live_gate(run), state.account
    name = None if gate is None else gate.schema.account_name
    if part is not None and part.name != name:
        raise StateError(
            f"{state.strategy_name} on {state.symbol} belongs to account {part.name!r}: start it "
            f"with account_name={part.name!r}, or keep it in another state_dir"
        )
    if gate is not None:
        await gate.enter(owner, state, holding)
