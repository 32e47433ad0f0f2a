"""What a person may order a live run to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from backtest_kit._values.actions import Add, Close, MoveStop, MoveTarget
from backtest_kit._values.errors import ArgumentError, did_you_mean
from backtest_kit._values.signal import Signal

CommandName = Literal[
    "close", "cancel", "move-stop", "move-target", "add", "open", "pause", "resume"
]


class _Order(msgspec.Struct, frozen=True, tag_field="action", forbid_unknown_fields=True):
    pass


class Cancel(_Order, frozen=True, tag="cancel"):
    """Cancel the signal that waits for its entry price."""


class Open(_Order, frozen=True, tag="open"):
    """Open a signal, or let it wait for its entry price."""

    signal: Signal


class Pause(_Order, frozen=True, tag="pause"):
    """Take no new signals, until `resume`; what lives goes on."""


class Resume(_Order, frozen=True, tag="resume"):
    """Take new signals again."""


Order = Close | Cancel | MoveStop | MoveTarget | Add | Open | Pause | Resume
_KINDS: Final[dict[str, type[Order]]] = {
    "close": Close,
    "cancel": Cancel,
    "move-stop": MoveStop,
    "move-target": MoveTarget,
    "add": Add,
    "open": Open,
    "pause": Pause,
    "resume": Resume,
}
ORDERS: Final = tuple(_KINDS)


def order_of(action: str, fields: Mapping[str, Any]) -> Order:
    """Return an action by its name, with those of its fields that are not `None`.

    Raises:
        ArgumentError: there is no such action, it has no such field, lacks one, or a number is not
            finite.
    """
    kind = _KINDS.get(action)
    if kind is None:
        raise ArgumentError(f"unknown action {action!r}{did_you_mean(str(action), ORDERS)}")
    given = {name: value for name, value in fields.items() if value is not None}
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes nothing"
            raise ArgumentError(f"{action} has no {name}: it {takes}")
    if isinstance(given.get("signal"), Signal):
        given["signal"] = msgspec.to_builtins(given["signal"])
    try:
        order: Order = msgspec.convert({"action": action, **given}, Order)
    except msgspec.ValidationError as error:
        raise ArgumentError(f"{action}: {error}") from None
    try:  # in JSON such a number is null, which may be allowed or not
        is_finite = msgspec.json.decode(msgspec.json.encode(order), type=Order) == order
    except msgspec.ValidationError:
        is_finite = False
    if not is_finite:
        raise ArgumentError(f"{action}: {given!r} has a number that is not finite")
    return order


def name_of(order: Order) -> CommandName:
    """Return the name of an action."""
    name: CommandName = order.__struct_config__.tag  # type: ignore[assignment]
    return name
