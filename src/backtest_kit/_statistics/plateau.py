"""The surroundings of the best parameters: how much of a metric is left one step away."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import msgspec

from backtest_kit._statistics.ranking import WalkerData

Value = int | float | str


class GridPoint(msgspec.Struct, frozen=True):
    """A strategy of `bk.grid` with its parameters, in their order; text where not a number."""

    strategy_name: str
    parameters: dict[str, Value]
    metric_value: float | None


class Neighbour(msgspec.Struct, frozen=True):
    """The best strategy with one parameter moved one step, from `value` to `moved`.

    `share` is what is left of the metric (1: all of it); `None` where either has none, or the best
    is not above 0.
    """

    strategy_name: str
    parameter: str
    value: Value
    moved: Value
    metric_value: float | None
    share: float | None


class Plateau(msgspec.Struct, frozen=True, kw_only=True):
    """The best strategy of a grid and its neighbours.

    `least_share` and `mean_share` are of the neighbours that have one: a best that stands on a
    plateau keeps most of its metric, a lucky one loses it at the next step.
    """

    strategy_name: str
    parameters: dict[str, Value]
    metric_value: float
    neighbours: tuple[Neighbour, ...]
    least_share: float | None
    mean_share: float | None

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return msgspec.json.encode(self).decode()


def grid_points(data: WalkerData) -> tuple[GridPoint, ...]:
    """Return the strategies whose names have the form of `bk.grid`, `title(a=1, b=2)`.

    Of several grids in one walk only that of the best strategy is taken.
    """
    found: dict[str, list[GridPoint]] = {}
    first = None
    for row in data.ranking:
        parsed = _parsed(row.strategy_name)
        if parsed is None:
            continue
        title, parameters = parsed
        key = f"{title}({', '.join(parameters)})"
        first = first or key
        point = GridPoint(row.strategy_name, parameters, row.metric_value)
        found.setdefault(key, []).append(point)
    return tuple(found[first]) if first is not None else ()


def steps_of(points: Sequence[GridPoint]) -> dict[str, list[Value]]:
    """Return the values of each parameter in order: numbers by size, others by their text."""
    names = points[0].parameters if points else {}
    return {
        name: sorted({point.parameters[name] for point in points}, key=_order) for name in names
    }


def plateau(data: WalkerData) -> Plateau | None:
    """Return the best strategy of a grid and its neighbours; `None` where it has none."""
    points = grid_points(data)
    if not points or points[0].metric_value is None:
        return None
    best, value = points[0], points[0].metric_value
    steps = steps_of(points)
    known = {tuple(point.parameters.values()): point for point in points}
    neighbours = []
    for name, values in steps.items():
        place = values.index(best.parameters[name])
        for moved in values[max(place - 1, 0) : place] + values[place + 1 : place + 2]:
            point = known.get(tuple((best.parameters | {name: moved}).values()))
            if point is not None:
                left = point.metric_value
                share = None if left is None or value <= 0 else left / value
                neighbours.append(
                    Neighbour(point.strategy_name, name, best.parameters[name], moved, left, share)
                )
    if not neighbours:
        return None
    shares = [n.share for n in neighbours if n.share is not None]
    return Plateau(
        strategy_name=best.strategy_name,
        parameters=best.parameters,
        metric_value=value,
        neighbours=tuple(neighbours),
        least_share=min(shares, default=None),
        mean_share=sum(shares) / len(shares) if shares else None,
    )


def _parsed(name: str) -> tuple[str, dict[str, Value]] | None:
    """Return the title and the parameters of a name, `None` where it has another form."""
    title, bracket, rest = name.partition("(")
    if not bracket or not rest.endswith(")"):
        return None
    try:
        call = ast.parse(f"_({rest}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(call, ast.Call) or call.args or not call.keywords:
        return None
    parameters: dict[str, Value] = {}
    for word in call.keywords:
        if word.arg is None:
            return None
        text = ast.unparse(word.value)
        try:
            value = ast.literal_eval(word.value)
        except (ValueError, TypeError):
            value = text
        number = isinstance(value, int | float) and not isinstance(value, bool)
        parameters[word.arg] = value if number else text
    return title, parameters


def _order(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")
