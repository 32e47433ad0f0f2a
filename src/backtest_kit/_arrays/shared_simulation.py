"""Simulations of runs that share an account: their columns go in, and one of each comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from backtest_kit._arrays import layout
from backtest_kit._arrays import together as plain
from backtest_kit._arrays.hold import PLAIN
from backtest_kit._arrays.job import ROOM, SignalRows
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.paid_account import PaidAccount
from backtest_kit._arrays.paying import Account
from backtest_kit._arrays.simulation import Simulation, announce
from backtest_kit._arrays.together import Runs
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.holding import SIZE, WIDTH
from backtest_kit._values.candles import Floats, Ints

#: Steps of all runs, over which they are not put together: half a gigabyte.
_MOST_STEPS: Final = 12_000_000
_OWN: Final = ("start", "frames", "until", "epoch", "base", "last")


class Part(NamedTuple):
    """What is to be simulated of one run, from frame `first` up to `until` (excluded)."""

    first: int
    bars: Bars
    rows: SignalRows
    until: int


def simulate_together(
    parts: Sequence[Part], account: PaidAccount, logger: logging.Logger
) -> list[Simulation] | None:
    """Simulate runs in the order of time, with an account that pays or refuses their trades.

    `None`: they are too many, or differ in more than their candles and signals.
    """
    simulations = [Simulation(part.first) for part in parts]
    jobs = [s.prepare(*part[1:]) for s, part in zip(simulations, parts, strict=True)]
    columns, rules = [each[0] for each in jobs], [each[1] for each in jobs]
    managed = any(each.managed for each in rules)
    rules = [each._replace(managed=managed) for each in rules]
    none: dict[str, Any] = dict.fromkeys(_OWN, 0)
    same = [each._replace(**none) for each in rules]
    steps = sum(len(each.price) for each in columns)
    if not rules[0].hop or any(each != same[0] for each in same) or steps > _MOST_STEPS:
        return None
    runs = _runs(parts, columns, rules)
    for state, simulation in zip(runs.states, simulations, strict=True):
        state[:] = simulation.state
    play = _function(logger)
    whole, real = np.empty((8, ROOM), dtype=np.int64), np.empty((7, ROOM))
    of = np.zeros(ROOM, dtype=np.int64)
    room = 3 * ROOM + len(runs.all_steps) + runs.steps.size
    paying = account.paying([part.rows.signals for part in parts], room)
    while (runs.events[:, plain.WHEN] != layout.NO_STEP).any():
        written = play(runs, paying, whole, real, of)
        account.take(paying, parts[0].bars.step)
        legs = np.repeat(of[:written], whole[layout.LEGS, :written])
        leg = runs.all_legs.reshape(-1, WIDTH)[: len(legs)]
        for i, (simulation, part) in enumerate(zip(simulations, parts, strict=True)):
            mine, its = of[:written] == i, legs == i
            simulation.take(
                *(part.bars, part.rows, columns[i], rules[i]),
                *(whole[:, :written][:, mine], real[:, :written][:, mine]),
                *(runs.all_steps[: len(legs)][its], leg[its].ravel()),
            )
    for state, simulation, part in zip(runs.states, simulations, parts, strict=True):
        simulation.state[:] = state
        simulation.finish(part.rows, part.until)
    return simulations


def _runs(
    parts: Sequence[Part], columns: Sequence[layout.Columns], rules: Sequence[layout.Rules]
) -> Runs:
    count = len(parts)
    marks = [part.bars.fill if part.bars.close is None else part.bars.close for part in parts]
    each_of = zip(columns, marks, strict=True)
    lengths = [[*(len(column) for column in each), len(mark)] for each, mark in each_of]
    levels = [max(len(each[i]) for each in columns) for i in (16, 17, 18)]
    most = sum(levels) // 2 + PLAIN
    legs = (2 * ROOM if sum(levels) else 0) + most

    def room(*shape: int) -> Floats:
        return np.zeros(shape)

    def whole(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    return Runs(
        columns=layout.Columns(*map(np.concatenate, zip(*columns, strict=True))),
        marks=np.concatenate(marks),
        begins=np.concatenate((whole(1, len(lengths[0])), np.cumsum(lengths, axis=0))),
        rules=rules[0],
        own=np.array([[getattr(each, name) for name in _OWN] for each in rules], dtype=np.int64),
        states=whole(count, 8),
        events=whole(count, 4),
        trades=whole(count, layout.TRADE),
        prices=room(count, layout.PRICES),
        holds=room(count, SIZE),
        profits=room(count, levels[0]),
        losses=room(count, levels[1]),
        entries=room(count, levels[2]),
        legs=room(count, most * WIDTH),
        steps=whole(count, most),
        saved=room(SIZE),
        now=room(count),
        all_legs=room(legs * WIDTH),
        all_steps=whole(legs),
    )


def _function(logger: logging.Logger) -> Callable[[Runs, Account, Ints, Floats, Ints], int]:
    """Return `play_together`, compiled where the kernel is loaded."""
    if not kernel_ready.is_set():
        return plain.play_together
    from backtest_kit._arrays import kernel

    if not kernel.play_together.signatures:  # type: ignore[attr-defined]
        announce(kernel.play_together, logger)
    return kernel.play_together
