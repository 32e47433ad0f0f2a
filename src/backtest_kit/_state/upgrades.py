"""What makes a document that an older release wrote one of the next version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _run_1(data: dict[str, Any]) -> dict[str, Any]:
    unknown = {"own": None, "own_sequence": 0, "told": None, "heard": None}
    filled = unknown | data | {"revision": 0}
    filled["signal"] = _row_1(data["signal"])
    filled["outbox"] = [_transition_1(entry) for entry in data["outbox"]]
    return filled


def _page_1(data: dict[str, Any]) -> dict[str, Any]:
    return data | {
        "revision": 0,
        "transitions": [_transition_1(entry) for entry in data["transitions"]],
    }


def _heartbeat_1(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"revision": {}, "told": {}}


def _transition_1(entry: dict[str, Any]) -> dict[str, Any]:
    filled = {"tick": None, "milestone": None} | entry
    for name in ("tick", "milestone"):
        event = filled[name]
        if event is not None:
            filled[name] = event | {"signal": _row_1(event["signal"])}
    return filled


def _run_2(data: dict[str, Any]) -> dict[str, Any]:
    unknown: dict[str, Any] = dict.fromkeys(("position", "followed", "managed_at", "session"))
    filled = unknown | {"paused": False, "done": []} | data
    filled["outbox"] = [_transition_2(entry) for entry in data["outbox"]]
    return filled


def _page_2(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"transitions": [_transition_2(entry) for entry in data["transitions"]]}


def _transition_2(entry: dict[str, Any]) -> dict[str, Any]:
    return {"command": None} | entry


def _run_3(data: dict[str, Any]) -> dict[str, Any]:
    position = data["position"]
    paid = None if position is None else position | {"account": None}
    return data | {"account": None, "position": paid}


def _same(data: dict[str, Any]) -> dict[str, Any]:
    return data


def _row_1(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {"price_limit": None} | row


#: By kind and older version.
UPGRADES: Final[Mapping[tuple[str, int], Upgrade]] = {
    ("run", 1): _run_1,
    ("journal", 1): _page_1,
    ("heartbeat", 1): _heartbeat_1,
    ("run", 2): _run_2,
    ("journal", 2): _page_2,
    ("heartbeat", 2): _same,
    ("cursor", 2): _same,
    ("run", 3): _run_3,
    ("journal", 3): _same,
    ("heartbeat", 3): _same,
    ("cursor", 3): _same,
    ("command", 3): _same,
}
