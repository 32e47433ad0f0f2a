"""What choosing in windows comes to: standing aside, fresh windows, the paths of groups."""

from __future__ import annotations

from collections.abc import Sequence

from backtest_kit._reports.table import minutes as duration
from backtest_kit._reports.table import number, plain, span
from backtest_kit._statistics.cross_validation import CrossValidation, Paths
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.stitched import Stitched
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.time import MINUTE

Rows = tuple[Sequence[str], Sequence[Sequence[str]]]


def stitched_lines(data: WalkForward) -> list[str]:
    """Return the sentence of a walk forward, and what it comes to in other ways."""
    lines = [data.sentence] if data.sentence else []
    if data.always is not None:
        lines.append(f"Had it always traded the best: {_figures(data.always, data.metric)}.")
    if data.fresh is not None:
        lines.append(
            f"With each window run for itself, from clean state: "
            f"{_figures(data.fresh, data.metric)}. {data.fresh.sentence}"
        )
        if data.fresh.always is not None:
            figures = _figures(data.fresh.always, data.metric)
            lines.append(f"So, had it always traded the best: {figures}.")
        lines += _failed(data.fresh.failed)
    return lines


def out_of_sample_text(data: WalkForward) -> str:
    """Return the metric over the test windows together, with its trades and its interval."""
    trades = data.statistics.total_signals
    if data.out_of_sample is None:
        outside = f"too few trades ({trades})" if trades < MIN_TRADES else "n/a"
    else:
        outside = f"{number(data.out_of_sample, 3)} over {trades} trades"
    if data.interval is not None:
        outside += f" (95 %: {number(data.interval.lower, 3)} to {number(data.interval.upper, 3)})"
    return outside


def forward_lines(data: WalkForward) -> list[str]:
    """Return what the windows amount to: their means side by side, then all test windows as one."""
    traded = [window for window in data.windows if window.aside is None]
    inside = [w.in_sample for w in traded if w.in_sample is not None]
    outside = [w.out_of_sample for w in traded if w.out_of_sample is not None]
    train = _length([(w.train_since, w.train_until) for w in data.windows])
    test = _length([(w.test_since, w.test_until) for w in data.windows])
    means = (
        f"Mean of the windows, {data.metric}: {number(data.in_sample, 3)} in sample ({len(inside)} "
        f"windows of {train}), {number(_mean(outside), 3)} out of sample ({len(outside)} windows "
        f"of {test}; those with {MIN_TRADES} trades count)."
    )
    if not traded:  # the figures of nothing
        return [*stitched_lines(data), _best_of_each(data)]
    return [
        *stitched_lines(data),
        means,
        f"Out of sample, all test windows together, {data.metric}: {out_of_sample_text(data)}.",
        f"Profit a day out of sample over profit a day in sample: {number(data.efficiency)}.",
        _best_of_each(data),
    ]


def _best_of_each(data: WalkForward) -> str:
    """Return how many strategies were the best of a train window."""
    names = [window.strategy_name for window in data.windows if window.strategy_name]
    if not names:
        return f"In no train window had a strategy {MIN_TRADES} trades."
    best = len(set(names))
    were = f"{best:,} different strategies" if best > 1 else "one and the same strategy"
    if all(window.aside is None for window in data.windows):
        return f"{len(names):,} window{'s' * (len(names) > 1)} chose {were}."
    of_all = f" of {len(data.windows):,}" if len(data.windows) > len(names) else ""
    return f"The best of {len(names):,}{of_all} train windows: {were}."


def _length(spans: Sequence[tuple[int, int]]) -> str:
    """Return how long windows are; the longest of those that grow."""
    lengths = {end - begin for begin, end in spans}
    return ("up to " if len(lengths) > 1 else "") + duration(max(lengths) / MINUTE)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _figures(data: Stitched, metric: str) -> str:
    interval = data.interval
    ends = "" if interval is None else f", 95 %: {number(interval.lower, 3)} to "
    ends += "" if interval is None else number(interval.upper, 3)
    total = number(data.statistics.total_pnl)
    return (
        f"{metric} {number(data.out_of_sample, 3)} over {data.statistics.total_signals:,} trades "
        f"out of sample ({total} % in all{ends})"
    )


def _failed(runs: Sequence[str]) -> list[str]:
    if not runs:
        return []
    return [f"Runs of single windows that failed: {len(runs)}, the first {runs[0]}"]


def cross_validation_lines(data: CrossValidation) -> list[str]:
    """Return what the paths of a cross-validation amount to."""
    lines = [data.sentence]
    if data.always is not None:
        lines.append(f"Had it always traded the best: {_paths(data.always, data.metric)}.")
    if data.fresh is not None:
        said = data.fresh.sentence[:1].lower() + data.fresh.sentence[1:]
        lines.append(f"With each window run for itself, from clean state: {said}")
        if data.fresh.always is not None:
            lines.append(
                f"So, had it always traded the best: {_paths(data.fresh.always, data.metric)}."
            )
        lines += _failed(data.fresh.failed)
    lines.append(
        f"{len(data.groups)} groups, {len(data.splits):,} splits, {len(data.paths):,} paths. Paths "
        "share their candles: they are no independent samples."
    )
    return lines


def _paths(data: Paths, metric: str) -> str:
    return (
        f"{metric} {number(data.median, 3)} in the median path (5 to 95 % of them: "
        f"{number(data.lower, 3)} to {number(data.upper, 3)}), {data.lost or 'none'} of "
        f"{len(data.paths)} lost"
    )


def paths_table(data: CrossValidation) -> Rows:
    """Return each path: had it always traded the best, beside what it stood aside from."""
    columns = ("Path", data.metric, "Trades", "Total %", "Stood aside", "Always", "Always, total %")
    always = data.paths if data.always is None else data.always.paths
    return columns, [
        (
            str(number_),
            number(path.value, 3),
            str(path.trades),
            number(path.total),
            f"{path.stood_aside} of {len(data.groups)}",
            number(forced.value, 3),
            number(forced.total),
        )
        for number_, (path, forced) in enumerate(zip(data.paths, always, strict=True), 1)
    ]


def splits_table(data: CrossValidation) -> Rows:
    """Return what was chosen in each split."""
    columns = ("Tested", "Chosen", "In sample", "Trades", "Purged", "Stood aside")
    return columns, [
        (
            " and ".join(span(*_ends(data, group)) for group in split.test),
            split.strategy_name or "none",
            number(split.in_sample, 3),
            str(split.in_sample_trades),
            str(split.purged),
            split.aside or "",
        )
        for split in data.splits
    ]


def _ends(data: CrossValidation, group: int) -> tuple[int, int]:
    return data.groups[group].since, data.groups[group].until


def as_list(lines: Sequence[str]) -> str:
    """Return lines as a Markdown list."""
    return "\n".join(f"- {plain(line)}" for line in lines)
