"""Risk: what the risk profiles refused, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import markdown_table, plain, price
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.table import Table, Tabular, table_of
from backtest_kit._values.time import iso


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True):
    """How often a profile refused for a reason."""

    risk_name: str
    reason: str
    count: int


class Refusal(RiskEvent, frozen=True, kw_only=True):
    """A profile's refusal, and the frame of the run it was given in."""

    frame_name: str | None


class RiskData(Tabular, frozen=True, kw_only=True):
    """Answers of the risk profiles; `rejections` are the newest of each run, up to 1,000."""

    symbol: str
    strategy_name: str
    allowed: int
    rejected: int
    reasons: tuple[RefusalCount, ...]
    rejections: tuple[Refusal, ...]

    def table(self) -> Table:
        """Return the refusals as columns."""
        return table_of(self.rejections, Refusal, "refusals")


def risk_data(records: Sequence[RunRecord]) -> RiskData:
    """Return what was allowed and refused in these runs."""
    events = tuple(
        Refusal(**msgspec.structs.asdict(event), frame_name=record.frame_name)
        for record in records
        for event in record.rejections
    )
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        counts += record.refused
    return RiskData(
        symbol=", ".join(dict.fromkeys(record.symbol for record in records)),
        strategy_name=records[0].strategy_name,
        allowed=sum(record.risk_allowed for record in records),
        rejected=counts.total(),
        reasons=tuple(
            RefusalCount(risk_name=name, reason=reason, count=count)
            for (name, reason), count in counts.most_common()
        ),
        rejections=events,
    )


def risk_report(data: RiskData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Risk refusals of {plain(data.strategy_name)} on {plain(data.symbol)}",
        f"{data.allowed} checks passed, {data.rejected} were refused.",
    ]
    if data.reasons:
        reasons = [(r.risk_name, r.reason, r.count) for r in data.reasons]
        rows = [
            (
                iso(e.timestamp),
                e.symbol,
                e.frame_name or "",
                e.risk_name,
                e.signal.position,
                price(e.price),
                e.active_count,
                e.reason or "",
            )
            for e in data.rejections
        ]
        columns = (
            "Time",
            "Symbol",
            "Frame",
            "Profile",
            "Side",
            "Price",
            "Open positions",
            "Reason",
        )
        parts += [
            "## By reason",
            markdown_table(("Profile", "Reason", "Refusals"), reasons),
            "## One by one",
            markdown_table(columns, rows),
        ]
    return "\n\n".join(parts) + "\n"
