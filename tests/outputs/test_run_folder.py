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
from command import one_line, run_here
from markets import played

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
