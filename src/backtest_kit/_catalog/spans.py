"""Spans of time: which are covered, and what is missing of one."""

from __future__ import annotations

from collections.abc import Iterable

#: From, and up to but not including, in milliseconds UTC.
Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as spans that neither touch nor overlap, ascending."""
    joined: list[Span] = []
    for since, until in sorted(span for span in spans if span[0] < span[1]):
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(until, joined[-1][1]))
        else:
            joined.append((since, until))
    return joined


def missing(covered: Iterable[Span], since: int, until: int) -> list[Span]:
    """Return what of [since, until) no span covers."""
    found: list[Span] = []
    at = since
    for begin, end in union(covered):
        if begin >= until:
            break
        if begin > at:
            found.append((at, begin))
        at = max(at, end)
    if at < until:
        found.append((at, until))
    return found


def within(spans: Iterable[Span], since: int, until: int) -> list[Span]:
    """Return the spans, cut to [since, until)."""
    return union((max(a, since), min(b, until)) for a, b in spans)
