"""A strategy per combination of parameters."""

import itertools

import pytest

import backtest_kit as bk


def crossover(fast, slow):
    if fast >= slow:
        return None
    return {"interval": "5m", "get_signal": lambda symbol, when: (fast, slow)}


def test_names_say_the_parameters_and_the_last_one_varies_fastest():
    names = bk.grid(crossover, fast=[10, 20], slow=range(10, 40, 10))
    assert names == [
        "crossover(fast=10, slow=20)",
        "crossover(fast=10, slow=30)",
        "crossover(fast=20, slow=30)",
    ]
    assert [s.strategy_name for s in bk.list_strategies()] == names
    answers = [s.get_signal("X", None) for s in bk.list_strategies()]
    pairs = itertools.product([10, 20], range(10, 40, 10))
    assert answers == [(fast, slow) for fast, slow in pairs if fast < slow]


def test_a_schema_keeps_its_own_name_in_front():
    def make(n):
        return bk.StrategySchema(strategy_name="mine", interval="1m", get_signal=print)

    assert bk.grid(make, n=["a", 2.5, None]) == ["mine(n='a')", "mine(n=2.5)", "mine(n=None)"]


def boom(n):
    if n == 2:
        raise ValueError("no two")
    return {"interval": "1m", "get_signal": print}


@pytest.mark.parametrize(
    ("factory", "parameters", "text"),
    [
        (crossover, {"fast": [], "slow": [1]}, "fast has no values"),
        (crossover, {"fast": 5, "slow": [1]}, "fast=5 must be several values"),
        (crossover, {"fast": "ab", "slow": [1]}, "fast='ab' must be several"),
        (crossover, {"fast": [1, 2, 1], "slow": [3]}, "fast has 1 twice"),
        (crossover, {"fast": [9], "slow": [1]}, "no combination is left"),
        (crossover, {"fast": [9]}, r"crossover\(fast=9\) raised TypeError"),
        (boom, {"n": [1, 2]}, r"boom\(n=2\) raised ValueError: no two"),
        (lambda n: n, {"n": [3]}, "returned 3; it must be a StrategySchema"),
        (lambda n: {"interval": "7m", "get_signal": print}, {"n": [3]}, "interval"),
        (lambda n: {"intervall": "1m"}, {"n": [3]}, "intervall"),
    ],
)
def test_a_mistake_registers_nothing(factory, parameters, text):
    with pytest.raises(bk.RegistrationError, match=text):
        bk.grid(factory, **parameters)
    assert bk.list_strategies() == []


def test_a_name_that_is_taken():
    bk.add_strategy(
        strategy_name="crossover(fast=1, slow=2)", interval="1m", get_signal=lambda s, w: None
    )
    with pytest.raises(bk.RegistrationError, match="already exists"):
        bk.grid(crossover, fast=[0, 1], slow=[2])
    assert len(bk.list_strategies()) == 1


def test_a_grid_that_is_made_again_replaces_the_first():
    bk.grid(crossover, fast=[1, 3], slow=[2, 4])
    before = bk.list_strategies()
    names = bk.grid(crossover, fast=[1], slow=[2, 8])
    after = bk.list_strategies()
    assert len(after) == len(before) + 1
    assert after[0] is not before[0]
    assert after[1] is before[1] or after[1].name not in names
