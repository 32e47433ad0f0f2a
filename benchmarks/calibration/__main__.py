"""Measure, and write docs/calibration.md."""

import argparse
import functools
import time
from pathlib import Path

import numpy as np

from benchmarks.calibration.compared import COMPARED, RISE, count_compared
from benchmarks.calibration.engine import fair_walk, rising_walk
from benchmarks.calibration.markets import NULLS, random_entries
from benchmarks.calibration.measure import (
    TRADES_A_YEAR,
    Count,
    bound,
    count_claims,
    exact_limit,
    power,
    stability,
    without_stops,
)

SIZES = (5, 20, 100)
COPIES = "independent beside 500 near-copies of one"
#: Of walks beside so many copies, and of the changed ones, fewer are enough.
MANY, CHANGED = 4, 100
GOAL = 0.8
THROUGH = {
    "a fair market with wide stops, through the engine": fair_walk,
    "a rising market, against random entries, through the engine": rising_walk,
}
PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
TEXT = """\
# Calibration

What the sentence at the end of a walk can be relied on for, measured by `make calibration`, which
writes this page. A row is of {walks:,} walks where nothing is to be found, but of {copies:,} beside
500 near-copies and {engine:,} through the engine; of {edges:,} where an edge is, and of {changed:,}
changed ones. The seeds are fixed. A smaller run of it is a test. What is counted is the sentence: a
winner or a tie. How it is found is in [walks](walker.md#what-it-is-worth).

## Where there is nothing to find

Strategies whose expected profit is exactly 0. At most 5 in 100 walks may claim something: a row
may exceed that by two standard errors of its count. Each row is of walks over 5, 20 and 100
strategies; in brackets is the 95 % interval.

{nulls}

- Trades follow each other over a year and have a stop at one deviation, unless the row says
  otherwise.
- *Overlapping* trades last two or five times the time between them. *Pooled* are trades on five
  markets at once whose moves have a correlation of 0.7.
- *Real minutes* are random entries in the minutes of {market}, held for four hours, less what such
  trades made on average.
- *Through the engine* is a whole walk over a market that is a fair game: random entries that win 1
  % or lose 20 %, held for ten days at the most, without costs. *Against random entries* the market
  rises by 0.3 % a day, and random entries win or lose 2 %: they rise with it, and have nothing
  else.
- *Against holding* the market rises by {rise} % a day, and each strategy holds twice or nothing
  each day, as a coin falls: on average it makes what holding makes.
- *Beside 100 of the ledger* the walk has the best of all that were tried, and the ledger the 100
  others: either with their trades, or as a number that is all that is known of them.
- *Walking forward* are windows of 90 days to choose in and 30 to judge: what is counted is that the
  sentence on the stitched test windows says that something was earned. By the rule it mostly stands
  aside.

A row far below 5 % costs power there. Losses that are rare are judged by what one of them would
cost, so that few such trades show nothing at all; trades of long holding times leave few bins of
time; what is known by number alone counts as if it were independent of all else.

## What is found

An edge is planted among strategies that have none: trades that win or lose 1, {trades} a year.
*Exact* is how often the test finds it that knows the deviations and how the strategies depend on
each other. *Found* is the share of those walks in which the sentence names it, as the winner or in
a tie; it is to be 0.8.

{power}

*StepM* is what Romano and Wolf's procedure finds of the same walks, as the package `arch` has it
(daily bins, 1,000 resamples, without the one more loss); of half near-copies the sentence is to
find 0.8 of that. It is computed here, on the same series: it is no figure of their paper.

Without stops, the one more loss that a strategy is given is its worst trade: of daily trades (250
a year, normal, a yearly Sharpe ratio of 2 among 20) the sentence names {without} of what the exact
test finds: {verdict} the goal of 0.8.

## What changes nothing

Walks with a best p-value between 0.02 and 0.1 after a change that should not matter. The same
sentence is to come of 95 in 100.

{stability}
"""


def table(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(count, limit=None):
    low, high = count.interval
    marks = "**" if limit is not None and count.share > limit else ""
    return f"{marks}{count.hits} of {count.walks} ({100 * low:.1f} to {100 * high:.1f} %){marks}"


def engine_walks(walks):
    return max(walks // 5, 20)


def count_engine(walk, strategies, walks):
    rng = np.random.default_rng([5, strategies])
    kinds = [walk(rng, strategies).verdict.kind for _ in range(walks)]
    return Count(sum(kind in ("winner", "tie") for kind in kinds), walks)


def null_rows(walks, minutes):
    counters = {name: functools.partial(count_claims, null) for name, null in NULLS.items()}
    if minutes is not None:
        entries = functools.partial(random_entries, path=minutes)
        counters["random entries in real minutes, centred"] = functools.partial(
            count_claims, entries
        )
    for name, walk in COMPARED.items():
        counters[name] = functools.partial(count_compared, walk)
    for name, counter in counters.items():
        fewer = MANY if name == COPIES else 1
        yield name, [counter(size, walks // fewer) for size in SIZES]
    for name, walk in THROUGH.items():
        yield name, [count_engine(walk, size, engine_walks(walks)) for size in SIZES]


def power_rows(walks):
    cells = [(n, s, years, 0.0) for n in SIZES for s in (1.0, 2.0, 4.0) for years in (1, 4)]
    cells += [(n, 2.0, 1, 0.5) for n in (20, 100)]
    for strategies, sharpe, years, alike in cells:
        of = power(sharpe, strategies, years, walks, alike=alike, stepm=bool(alike))
        yield strategies, sharpe, years, alike, of


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=500, help="walks a row")
    parser.add_argument("--minutes", type=Path, help="a year of one-minute candles (Parquet)")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    began = time.perf_counter()
    nulls, worst = [], []
    for name, counts in null_rows(given.walks, given.minutes):
        cells = [cell(count, bound(count.walks)) for count in counts]
        nulls.append([name, *cells])
        worst += [(name, count) for count in counts if count.share > bound(count.walks)]
        print(f"{time.perf_counter() - began:6.0f} s  {name}: {', '.join(cells)}", flush=True)
    powers = []
    for strategies, sharpe, years, alike, of in power_rows(given.walks // 2):
        row = [str(strategies), "half" if alike else "", f"{sharpe:g}", str(years)]
        row += [f"{100 * of.exact.share:.1f} %", f"{of.found.share:.2f}", cell(of.found)]
        row += ["" if of.stepm is None else f"{of.stepm.share:.2f}"]
        powers.append(row)
        print(f"{time.perf_counter() - began:6.0f} s  power {row}", flush=True)
    bare = without_stops(given.walks // 2)
    same = stability(CHANGED)
    text = TEXT.format(
        walks=given.walks,
        copies=given.walks // MANY,
        engine=engine_walks(given.walks),
        edges=given.walks // 2,
        changed=CHANGED,
        rise=f"{RISE:g}",
        verdict="short of" if bare.share < GOAL else "within",
        trades=TRADES_A_YEAR,
        market=given.minutes.stem if given.minutes else "no market: give `--minutes`",
        nulls=table(["", *(f"{size} strategies" for size in SIZES)], nulls),
        power=table(
            ["Strategies", "Near-copies", "Sharpe", "Years", "Exact", "Found", "Walks", "StepM"],
            powers,
        ),
        without=f"{bare.share:.2f} ({cell(bare)})",
        stability=table(["", "The same"], [[what, cell(of)] for what, of in same.items()]),
    )
    given.page.write_text(text, encoding="utf-8")
    print(f"{time.perf_counter() - began:.0f} s, {len(worst)} rows beyond their bound: {worst}")
    print(f"limit of 20 independent strategies: {exact_limit(20):.3f} deviations")


if __name__ == "__main__":
    main()
