"""Kept runs: what is in a folder, finding, listing and pruning them."""

import json
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.run_folder import (
    find_run,
    keep_run,
    kept_runs,
    prune_runs,
    read_run,
)
from backtest_kit.cli.runs import _short
from command import one_line, run_here
from markets import market, played

AT = 1_704_067_200_000


def test_a_folder_holds_the_whole_run(tmp_path):
    data = played(1)
    folder = keep_run(data, tmp_path, AT, {"report.html": b"<!doctype html>"})
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "data.json", "report.md", "report.html", "settings.json", "strategy.py"),
        *("trades.parquet", "equity.parquet"),
    }
    assert read_run(folder) == data
    assert len(pd.read_parquet(folder / "trades.parquet")) == len(data.signals)
    assert "def get_signals" in (folder / "strategy.py").read_text()
    assert json.loads((folder / "settings.json").read_text())["percent_fee"] == 0.1
    info = kept_runs(tmp_path)[0].info
    assert info.trades == len(data.signals)
    assert info.versions["python"] == sys.version.split()[0]


def test_runs_of_one_second_do_not_overwrite_each_other(tmp_path):
    folders = [keep_run(played(1), tmp_path, AT) for _ in range(3)]
    assert len(set(folders)) == 3
    other = keep_run(played(1, percent_fee=0.0), tmp_path, AT)
    digests = {run.folder: run.info.digest for run in kept_runs(tmp_path)}
    assert len({digests[folder] for folder in folders}) == 1
    assert digests[other] != digests[folders[0]]


def test_a_run_is_found_by_path_name_digest_or_as_the_last(tmp_path):
    first, last = (keep_run(played(n), tmp_path, AT + n * 60_000) for n in (1, 2))
    digest = kept_runs(tmp_path)[-1].info.digest
    assert find_run(tmp_path, str(first)) == find_run(tmp_path, first.name[:17]) == first
    assert find_run(tmp_path, "last") == last
    assert find_run(tmp_path, "previous") == first
    for name, text in (("none", "no run is called 'none'"), (digest, "2 runs begin with")):
        with pytest.raises(bk.BacktestKitError, match=text):
            find_run(tmp_path, name)


def test_a_folder_that_is_damaged_is_listed_and_not_removed(tmp_path):
    whole, broken = (keep_run(played(1), tmp_path, AT + n) for n in (0, 1))
    (broken / "run.json").write_text("{")
    (tmp_path / "mine").mkdir()
    assert {run.folder: bool(run.damage) for run in kept_runs(tmp_path)} == {
        whole: False,
        broken: True,
    }
    assert prune_runs(tmp_path, 0) == [whole]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([broken.name, "mine"])


def test_pruning_keeps_the_newest(tmp_path):
    folders = [keep_run(played(1), tmp_path, AT + n * 1000) for n in range(4)]
    assert set(prune_runs(tmp_path, 2)) == set(folders[:2])
    assert [run.folder for run in kept_runs(tmp_path)] == folders[:1:-1]


@given(st.text(min_size=1, max_size=300))
def test_no_name_leaves_the_folder(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("runs")
    folder = keep_run(played(1, symbol=name), root, AT)
    assert folder.parent == root
    assert read_run(folder).symbol == name


def test_the_commands(tmp_path):
    one_line(run_here("runs", "compare", "last", cwd=tmp_path), "give two runs")
    assert "no runs in" in run_here("runs", cwd=tmp_path).stdout
    root = tmp_path / "dump" / "runs"
    keep_run(played(1), root, AT)
    keep_run(played(1, percent_fee=0.0), root, AT + 1000)
    listed = json.loads(run_here("runs", "--json", cwd=tmp_path).stdout)
    assert [run["started_at"] for run in listed] == [AT + 1000, AT]
    shown = run_here("runs", cwd=tmp_path).stdout
    assert shown.count("X") >= 2
    compared = run_here("runs", "compare", listed[1]["digest"], "last", cwd=tmp_path)
    assert "percent_fee" in compared.stdout
    data = json.loads(run_here("runs", "compare", "--json", "last", "last", cwd=tmp_path).stdout)
    assert data[0]["trades"] == []
    assert "1 removed, 1 left" in run_here("runs", "prune", "--keep", 1, cwd=tmp_path).stdout
    one_line(run_here("runs", "compare", "none", "last", cwd=tmp_path), "no run is called 'none'")


STRATEGIES = """
import backtest_kit as bk

def often(n):
    def get_signals(candles):
        return bk.Signals.bracket(candles.timestamp // 300_000 % n == 0, 0.8, 0.6, 30)
    return get_signals

for n in (5, 7):
    bk.add_strategy(strategy_name=f"often(n={n})", interval="5m", get_signals=often(n), warmup=1)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two backtests and a walk that were kept, without pages."""
    place = tmp_path_factory.mktemp("runs")
    (place / "often.py").write_text(STRATEGIES)
    rows = [",".join(map(str, row)) for row in market(5, 3000, gaps=False)]
    (place / "x.csv").write_text("\n".join(rows))
    words = ("often.py", "--symbol", "X", "--data", "x.csv")
    for command in (("backtest", *words), ("walk", *words, "--store", "s")):
        done = run_here(*command, cwd=place)
        assert done.returncode == 0, done.stderr
    return place


def test_backtests_and_walks_are_listed_and_reported(place):
    listed = json.loads(run_here("runs", "--json", cwd=place).stdout)
    assert sorted(run["kind"] for run in listed) == ["backtest", "backtest", "walk"]
    assert len({run["folder"] for run in listed}) == 3
    assert "best: often(n=" in run_here("runs", cwd=place).stdout
    for run in listed:
        shown = run_here("report", run["digest"], cwd=place).stdout
        assert shown == (place / run["folder"] / "report.md").read_text()
    compared = run_here("runs", "compare", "previous", "last", cwd=place)
    assert compared.returncode == 0, "of backtests: a walk is not among them"
    one_line(run_here("report", "nothing", cwd=place), "no run is called 'nothing'")


def test_a_page_is_made_again_with_its_candles_and_opened(place, monkeypatch):
    pytest.importorskip("bokeh", reason="needs the extra report")
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    listed = json.loads(run_here("runs", "--json", cwd=place).stdout)
    walk = next(run for run in listed if run["kind"] == "walk")
    kept = next(run for run in listed if run["kind"] == "backtest")
    page = place / kept["folder"] / "report.html"
    told = run_here("report", kept["digest"], "--html", cwd=place)
    assert told.stdout.splitlines()[-1] == f"page: {page.relative_to(place)}"
    assert '"packed":' not in page.read_text()
    words = ("report", kept["digest"], "--data", "x.csv")
    run_here(*words, "--html", "--open", cwd=place)
    assert '"packed":' in page.read_text()
    assert opened == [page.resolve().as_uri()]
    one_line(run_here(*words, cwd=place), "--data is for --html")
    run_here("report", walk["digest"], "--html", "walk.html", cwd=place)
    assert '"curves":[{' in (place / "walk.html").read_text()
    (place / "y.csv").write_text("0,1,1,1,1,1\n60000,1,1,1,1,1\n")
    wrong = run_here("report", kept["digest"], "--html", "--data", "y.csv", cwd=place)
    one_line(wrong, "has no candles of X")


def test_a_number_at_the_top_of_the_file_is_a_change_of_the_code(place, tmp_path):
    (tmp_path / "x.csv").write_text((place / "x.csv").read_text())
    code = "PERCENT = 0.8\n" + STRATEGIES.replace("0.8", "PERCENT").replace("(5, 7)", "(5,)")
    for text in (code, code.replace("0.8", "1.1")):
        (tmp_path / "often.py").write_text(text)
        run_here("backtest", "often.py", "--symbol", "X", "--data", "x.csv", cwd=tmp_path)
    compared = run_here("runs", "compare", "previous", "last", cwd=tmp_path).stdout
    assert "-PERCENT = 0.8\n+PERCENT = 1.1\n" in compared
    rows = [line for line in compared.splitlines() if "| changed |" in line]
    assert rows, "those that reach the take-profit"
    assert all(row.split("|")[4] != row.split("|")[5] for row in rows)
    assert "the profit is the same" in compared


@given(st.lists(st.text("ab_Z", min_size=1, max_size=8), unique=True, max_size=8))
def test_a_run_is_listed_under_a_name_that_finds_it(names):
    for name, shown in zip(names, _short(names), strict=True):
        begin = [other for other in names if other.startswith(shown)]
        assert begin == [name] or (shown == name and name in begin)


def test_the_first_run_has_nothing_to_be_compared_with(tmp_path):
    keep_run(played(1), tmp_path / "dump" / "runs", AT)
    told = run_here("runs", "compare", "previous", "last", cwd=tmp_path)
    one_line(told, "there is no previous backtest in dump/runs: it holds 1")


def test_a_second_ctrl_c_leaves_the_page_out(place, tmp_path, monkeypatch):
    pytest.importorskip("bokeh", reason="needs the extra report")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("backtest_kit.cli.pages.load_market", interrupted)
    words = ("backtest", place / "often.py", "--symbol", "X", "--data", place / "x.csv", "--html")
    done = run_here(*words, cwd=tmp_path)
    one_line(done, "interrupted before there was a page", code=130)
    folders = [*(tmp_path / "dump" / "runs").iterdir()]
    assert len(folders) == 2
    assert all((folder / "run.json").exists() for folder in folders)
    assert not any((folder / "report.html").exists() for folder in folders)
