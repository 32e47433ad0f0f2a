"""The command: its tables, each row from a process of its own; see the package for the rules."""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers.rules import (
    DAY,
    ENDLESS,
    HUNDRED,
    LIFE,
    ONE,
    THOUSAND,
    YEAR,
    prices,
    same,
)

SPANS = {"30 d": 30 * DAY, "1 y": YEAR, "3 y": 1096 * DAY, "10 y": 3650 * DAY}
FEW = tuple(range(0, 100, 40))  # sets of those that run one by one
MEGABYTES = 3000  # what a hundred columns of vectorbt want, with room

PACKAGES = {
    "vectorbt": "vectorbt",
    "vectorbt_one_by_one": "vectorbt",
    "vectorbt_rust": "vectorbt-rust",
    "vectorbt_rust_one_by_one": "vectorbt-rust",
    "backtesting": "backtesting",
    "backtesting_at_each_bar": "backtesting",
    "nautilus_trader": "nautilus_trader",
}
OWN = "backtest-kit"
TITLES = {"vectorbt": "vectorbt {} (Numba)", "vectorbt-rust": "vectorbt {} (Rust)"}


class Bench:
    """Where what is installed, and the candles; measures each thing once."""

    def __init__(self, interpreters, folder, rows):
        self.folder, self.console = Path(folder), Console(width=120)
        self.errors = Console(stderr=True)
        self.pythons, self.versions = {}, {}
        names = sorted(set(PACKAGES.values()))
        for python in interpreters:
            for name, version in self.ask(python, {"versions": names}).items():
                if version is not None and name not in self.pythons:
                    self.pythons[name], self.versions[name] = python, version
        for name in names:
            if name not in self.versions:
                self.console.print(f"{name}: not installed, left out")
        np.save(self.folder / "prices.npy", prices(rows))

    def ask(self, python, job):
        command = [python, "-m", "benchmarks.peers.worker", json.dumps(job)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{job} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def has(self, who):
        return PACKAGES.get(who) is None or PACKAGES[who] in self.pythons

    def title(self, who):
        name = PACKAGES[who]
        return TITLES.get(name, name + " {}").format(self.versions[name])

    def measure(self, who, sets=ONE, life=LIFE, rows=YEAR, repeats=1):
        return self._measure(who, sets, life, rows, repeats)

    @functools.cache  # noqa: B019 - there is one bench in a process
    def _measure(self, who, sets, life, rows, repeats):
        what = f"the best of {repeats}" if repeats else "memory before a run"
        self.errors.print(f"{who}: {len(sets)} sets, {rows:,} candles, {what}")
        python = self.pythons.get(PACKAGES.get(who), sys.executable)
        path = self.folder / "trades.npz"
        job = {"who": who, "prices": str(self.folder / "prices.npy"), "rows": rows}
        job |= {"sets": sets, "life": life, "repeats": repeats, "trades": str(path)}
        found = self.ask(python, job)
        if repeats:
            with np.load(path) as kept:
                found["trades"] = [kept[name] for name in kept.files]
        return found

    def compared(self, own, who, **what):
        """Measure one whose trades are those of `own`."""
        found = self.measure(who, **what)
        same(own["trades"], found["trades"], what.get("rows", YEAR))
        return found

    def idle(self, who, **what):
        return self.measure(who, **what | {"repeats": 0})["peak"]


def table(title, *columns):
    made = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i else "left", no_wrap=not i)
    return made


def single(bench):
    out = table(
        "Single run over a year of minutes, signals computed included",
        *("Framework", "Time", "Bars a second", "Times as long", "Memory", "Idle"),
    )
    for life, name in ((LIFE, "240 minutes"), (ENDLESS, "without limit")):
        base = bench.measure("trial", life=life, repeats=10)
        count = len(base["trades"][0])
        out.add_row(f"[bold]lifetime {name}: {count:,} equal trades")
        rows = [
            (f"{OWN}, a trial of a walk", "trial", 10),
            (f"{OWN}, Backtest, get_signals (arrays)", "with_arrays", 5),
        ]
        if life == LIFE:
            rows.append((f"{OWN}, Backtest, get_signal each minute", "with_sums", 3))
        rows.append(("vectorbt", "vectorbt", 5))
        if life == LIFE:
            rows += [(who, who, 2) for who in ("backtesting", "nautilus_trader")]
        else:
            rows.append(("vectorbt", "vectorbt_rust", 5))
        for title, who, repeats in rows:
            if not bench.has(who):
                continue
            found = bench.compared(base, who, life=life, repeats=repeats)
            idle, seconds = bench.idle(who, life=life), found["seconds"]
            out.add_row(
                bench.title(who) if who in PACKAGES else title,
                f"{seconds * 1e3:,.1f} ms",
                f"{YEAR / seconds:,.0f}",
                f"{seconds / base['seconds']:,.1f}",
                f"{found['peak'] - idle:,.0f} MB",
                f"{idle:,.0f} MB",
            )
        out.add_section()
    out.caption = (
        "Idle: most memory with all imported, compiled and candles made; Memory: more with a run"
    )
    bench.console.print(out)


def events(bench):
    """The event path beside backtesting.py, in like pairs."""
    if not bench.has("backtesting"):
        return
    title = bench.title("backtesting")
    out = table(
        f"A Python function asked at each bar, beside {title}: a year of minutes, lifetime 240",
        *("The same work", "Bars a second", "backtesting.py's", "Ratio"),
    )
    base = bench.measure("trial", repeats=10)
    pairs = (
        ("means computed at each bar", "with_means", "backtesting_at_each_bar"),
        ("prepared: running sums, and self.I", "with_sums", "backtesting"),
        ("prepared: get_signals (arrays), and self.I", "with_arrays", "backtesting"),
    )
    repeats = {"with_sums": 3, "with_arrays": 5}
    for name, mine, other in pairs:
        own, theirs = (
            YEAR / bench.compared(base, who, repeats=repeats.get(who, 2), life=LIFE)["seconds"]
            for who in (mine, other)
        )
        out.add_row(name, f"{own:,.0f}", f"{theirs:,.0f}", f"{own / theirs:,.1f}")
    bench.console.print(out)


def available():
    """Megabytes of memory that are free; endless where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) / 1024


def sweeps(bench):
    out = table(
        "Sweeps over a year of minutes, trades of each set equal; ~ extrapolated from 3 sets",
        *("Framework", "Sets", "Time", "Set-bars a second", "Times as long", "Peak memory"),
    )
    columns = "100 columns a call"
    vectorbts = {
        LIFE: (("vectorbt", columns),),
        ENDLESS: (
            ("vectorbt", columns),
            ("vectorbt_rust", columns),
            ("vectorbt_rust_one_by_one", "1 column a call"),
        ),
    }
    for life, name in ((LIFE, "240 minutes"), (ENDLESS, "without limit")):
        for sets in (HUNDRED, THOUSAND):
            size, base = len(sets), bench.measure("walk", sets=sets, life=life, repeats=2)
            count = sum(map(len, base["trades"]))
            out.add_row(f"[bold]lifetime {name}: {count:,} equal trades")

            def row(title, seconds, peak, mark="", size=size, base=base):
                rate, ratio = size * YEAR / seconds, seconds / base["seconds"]
                shown = f"{seconds:,.2f} s" if seconds < 100 else f"{seconds:,.0f} s"
                cells = (f"{mark}{shown}", f"{rate:,.0f}", f"{mark}{ratio:,.1f}")
                out.add_row(title, f"{size:,}", *cells, f"{peak:,.0f} MB")

            row(f"{OWN}, bk.Walker over bk.grid", base["seconds"], base["peak"])
            for who, how in vectorbts[life]:
                if not bench.has(who):
                    continue
                if available() < MEGABYTES:
                    out.add_row(f"{bench.title(who)}: under {MEGABYTES:,} MB free, left out")
                    continue
                found = bench.compared(base, who, sets=sets, life=life)
                row(f"{bench.title(who)}, {how}", found["seconds"], found["peak"])
            for who in ("backtesting", "nautilus_trader") if life == LIFE else ():
                if bench.has(who):
                    few = tuple(HUNDRED[i] for i in FEW)
                    own = bench.measure("walk", sets=HUNDRED, repeats=2)
                    mine = {"trades": [own["trades"][i] for i in FEW]}
                    found = bench.compared(mine, who, sets=few, life=life)
                    each = found["seconds"] / len(few)
                    row(f"{bench.title(who)}, one by one", each * size, found["peak"], "~")
            out.add_section()
    bench.console.print(out)


def growth(bench, full):
    out = table("Single run from a month to ten years of minutes", "Framework", *SPANS, "ns a bar")
    rows = (
        ("lifetime 240 minutes", None, LIFE, 0),
        (f"{OWN}, a trial of a walk", "trial", LIFE, 5),
        (f"{OWN}, a backtest", "with_arrays", LIFE, 2),
        ("", "vectorbt", LIFE, 2),
        ("", "backtesting", LIFE, 1),
        ("", "nautilus_trader", LIFE, 1),
        ("lifetime without limit", None, ENDLESS, 0),
        (f"{OWN}, a trial of a walk", "trial", ENDLESS, 5),
        ("", "vectorbt", ENDLESS, 2),
        ("", "vectorbt_rust", ENDLESS, 2),
    )
    for title, who, life, repeats in rows:
        if who is None:
            out.add_section()
            out.add_row(f"[bold]{title}")
            continue
        if not bench.has(who):
            continue
        cells, each = [], 0.0
        for bars in SPANS.values():
            if who in ("backtesting", "nautilus_trader") and bars > YEAR and not full:
                cells.append("only with --full")
                continue
            base = bench.measure("trial", life=life, rows=bars, repeats=5)
            found = bench.compared(base, who, life=life, rows=bars, repeats=repeats)
            each = found["seconds"] / bars
            cells.append(f"{found['seconds']:,.3f} s")
        out.add_row(title or bench.title(who), *cells, f"{each * 1e9:,.0f}")
    out.caption = "ns a bar: of the longest run measured"
    bench.console.print(out)


@click.command()
@click.option("--also", multiple=True, metavar="PYTHON", help="Interpreter with other frameworks.")
@click.option("--quick", is_flag=True, help="Only the single run and the event path.")
@click.option("--full", is_flag=True, help="backtesting.py and nautilus_trader over ten years too.")
def main(also, quick, full):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench((sys.executable, *also), folder, YEAR if quick else max(SPANS.values()))
        single(bench)
        events(bench)
        if not quick:
            sweeps(bench)
            growth(bench, full)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.peers")
