"""What `data check` finds: bad prints and splits anywhere, and nothing in a wild market."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.data_check import convert, inspect
from markets import MINUTE, START

N = 300


def calm(seed=1, sigma=0.0005):
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, sigma, N))), 2)
    return [
        [START + i * MINUTE, c, c * 1.0005, c * 0.9995, c, 1.0]
        for i, c in enumerate(close.tolist())
    ]


def look(folder, rows, **options):
    path = folder / "x.csv"
    path.write_text("".join(",".join(map(repr, row)) + "\n" for row in rows))
    return inspect(path, **options)


def found(folder, rows):
    return [(s.kind, (s.timestamp - START) // MINUTE) for s in look(folder, rows).suspicions]


@pytest.mark.parametrize("factor", [12, 37, 100, 1 / 37, 1 / 100])
@pytest.mark.parametrize(
    "places", [[0], [1], [2], [150], [150, 151], [150, 151, 152], [N - 2], [N - 1], [N - 2, N - 1]]
)
def test_a_bad_print_is_found_wherever_it_is(tmp_path, factor, places):
    rows = calm()
    for i in places:
        rows[i][1:5] = [x * factor for x in rows[i][1:5]]
    assert found(tmp_path, rows) == [("bad print", places[0])]


@pytest.mark.parametrize(("column", "factor"), [(2, 100), (3, 1 / 100)])
@pytest.mark.parametrize("place", [0, 150, N - 1])
def test_a_bad_print_in_a_wick_is_found(tmp_path, column, factor, place):
    rows = calm()
    rows[place][column] *= factor
    assert found(tmp_path, rows) == [("bad print", place)]


@pytest.mark.parametrize("ratio", [1.5, 2, 3, 4, 7, 10, 20, 1 / 7, 1 / 10])
@pytest.mark.parametrize("inside", [True, False])
def test_a_split_is_found(tmp_path, ratio, inside):
    rows = calm()
    for i in range(200, N):
        rows[i][1:5] = [x / ratio for x in rows[i][1:5]]
    if inside:
        rows[200][1] *= ratio
        rows[200][2], rows[200][3] = max(rows[200][1:5]), min(rows[200][1:5])
    assert found(tmp_path, rows) == [("split", 200)]


def test_two_bad_prints_are_two(tmp_path):
    rows = calm()
    for i in (150, 160):
        rows[i][1:5] = [x * 100 for x in rows[i][1:5]]
    assert found(tmp_path, rows) == [("bad print", 150), ("bad print", 160)]


@example(seed=323, sigma=0.05)  # drifts by half within the first quarter of an hour
@given(seed=st.integers(0, 2**32), sigma=st.sampled_from([0.0005, 0.005, 0.02, 0.05]))
def test_a_wild_market_is_not_suspicious(tmp_path_factory, seed, sigma):
    assert found(tmp_path_factory.mktemp("w"), calm(seed, sigma)) == []


def test_a_crash_that_stays_is_no_split(tmp_path):
    rows = calm()
    for i in range(150, N):
        fall = max(0.45, 1 - 0.04 * (i - 149))
        rows[i][1:5] = [x * fall for x in rows[i][1:5]]
    assert found(tmp_path, rows) == []


def test_an_interval_can_be_given(tmp_path):
    rows = calm()[::3]
    assert (look(tmp_path, rows).interval, look(tmp_path, rows).missing) == ("3m", 0)
    report = look(tmp_path, rows, interval="1m")
    assert (report.interval, report.missing, len(report.gaps)) == ("1m", 198, 99)
    with pytest.raises(ValueError, match="unknown interval '2m'"):
        look(tmp_path, rows, interval="2m")


@pytest.mark.slow
def test_a_history_that_grew_a_thousandfold_is_usable_and_imported(tmp_path):
    n = 400_000
    steps = np.minimum(np.arange(n) / 150_000, 1.0)
    price = np.round(4 * np.exp(steps * np.log(8_000)), 2).tolist()
    path = tmp_path / "grown.csv"
    path.write_text(
        "".join(f"{START + i * MINUTE},{p},{p},{p},{p},1\n" for i, p in enumerate(price))
    )
    report = inspect(path)
    assert (report.usable, report.invalid) == (True, None)
    assert convert(path, tmp_path / "grown.parquet") == n
    exchange = bk.exchanges.ParquetExchange(tmp_path / "grown.parquet")
    assert exchange.data_range("X") == (START, START + n * MINUTE)
