"""Portfolios over mirrored prices, with long and short swapped.

A price `x` becomes `MIRROR - x`, high and low change places. What was bought is sold for the same
difference of prices, so a quantity makes the same money before costs. Costs are parts of a price,
hence other ones: `profit + fees + slippage` of a trade stays, and without costs all of the curve.
Only sizes in quantities mirror: given ones, and those by risk while equity is the same.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolios
from effort import examples
from markets import MINUTE, configs, script
from portfolios import SYMBOLS, World, played

MIRROR = 256.0
#: Prices are whole parts of this, so that mirroring is exact and levels are met on both sides.
GRID = 64
DISTANCES = [
    "min_take_profit_distance_percent",
    "min_stop_loss_distance_percent",
    "max_stop_loss_distance_percent",
]

worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    minutes=st.integers(150, 300),
    runs=st.sampled_from([{"s": ["A"]}, {"s": ["A", "B"]}, {"s": ["B", "A"], "r": ["A"]}]),
    interval=st.sampled_from(["1m", "3m"]),
    ask_rate=st.sampled_from([0.3, 1.0]),
    config=st.builds(
        lambda config, costs: (
            config
            # no level is too near or too far in percent of one price and not of the other
            | dict.fromkeys(DISTANCES, 0.0)
            | {"avg_price_candles_count": 1}
            | (costs or {"percent_fee": 0.0, "percent_slippage": 0.0})
        ),
        configs,
        st.sampled_from([None, {"percent_fee": 0.1, "percent_slippage": 0.1}]),
    ),
    account=st.fixed_dictionaries(
        {
            "balance": st.just(1_000_000.0),
            "leverage": st.sampled_from([1.0, 3.0]),
            "maintenance_percent": st.just(0.5),
        }
    ),
    sizings=st.just({"s": None, "r": None}),
    rules=st.fixed_dictionaries(
        dict.fromkeys(SYMBOLS, st.sampled_from([{}, {"quantity_step": 0.25}]))
    ),
    manages=st.just({"s": None, "r": None}),
)


def on_grid(price):
    return round(price * GRID) / GRID


def proposals(answer, seed, config):
    """Proposals on the grid, of a quantity or (without costs) of a risk; some with levels."""
    by_risk = config["percent_fee"] == 0
    # only then the script knows the price of the first entry, which percents are measured from
    levels = config["fill_price"] == "average"

    def more(t, price):
        # a mean of three prices on the grid, without what rounding did to it
        proposal = answer(t, round(price * 3 * GRID) / (3 * GRID))
        if proposal is None:
            return None
        for name in ("price_open", "price_take_profit", "price_stop_loss"):
            if name in proposal:
                proposal[name] = on_grid(proposal[name])
        rng = np.random.default_rng([seed, t // MINUTE, 3])
        if not by_risk or rng.random() < 0.5:
            proposal["quantity"] = float(rng.integers(1, 40)) * 7.3
        if levels and "price_open" not in proposal and rng.random() < 0.6:
            proposal |= {
                "take_profits": ((0.13, 31.0), (0.31, 20.0)),
                "stop_losses": ((0.17, 40.0),),
                "entries": ((0.11, 1.0), (0.23, 1.5)),
            }
        return proposal

    return more


def mirrored_rows(rows):
    return [
        (t, *(MIRROR - price for price in (opening, low, high, close)), volume)
        for t, opening, high, low, close, volume in rows
    ]


def mirrored(answer):
    """The script that says of mirrored prices what `answer` says of the others."""

    def swapped(t, price):
        first = MIRROR - price
        proposal = answer(t, first)
        if proposal is None:
            return None
        side = 1 if proposal["position"] == "long" else -1
        found = dict(proposal, position="short" if side > 0 else "long")
        for name in ("price_open", "price_take_profit", "price_stop_loss"):
            if name in proposal:
                found[name] = MIRROR - proposal[name]
        for name in ("take_profits", "stop_losses", "entries"):
            # the same distance is another percent of the mirrored price
            found[name] = tuple((x * first / price, y) for x, y in proposal.get(name, ()))
        # a size is a part of the first cost: the same quantity is another part of it
        found["entries"] = tuple(
            (x, size * first / level * (MIRROR - level) / price)
            for (x, size), level in (
                (there, first * (1 - side * here[0] / 100))
                for there, here in zip(found["entries"], proposal.get("entries", ()), strict=True)
            )
        )
        return {name: value for name, value in found.items() if value != ()}

    return swapped


def both(world):
    """The world as it is, and mirrored."""
    sizing = {"method": "fixed-percentage", "risk_percentage": 0.05, "max_position_size": 1_000.0}
    world = world._replace(sizings={"s": sizing, "r": sizing})
    rows_of = portfolios.rows_of

    def rows(world, symbol):
        return [
            (t, *map(on_grid, prices), float(volume > 3))
            for t, *prices, volume in rows_of(world, symbol)
        ]

    def answers(world, strategy, symbol):
        seed = world.seed + 10 * SYMBOLS.index(symbol) + (strategy == "r")
        return proposals(script(seed, world.ask_rate), seed, world.config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portfolios, "rows_of", rows)
        patch.setattr(portfolios, "script_of", answers)
        one = played(world)
        patch.setattr(portfolios, "rows_of", lambda *names: mirrored_rows(rows(*names)))
        patch.setattr(portfolios, "script_of", lambda *names: mirrored(answers(*names)))
        other = played(world)
    return one, other


@examples(20)
@given(worlds)
def test_mirrored_prices_with_sides_swapped_make_the_same_money_before_costs(world):
    (one, *_), (other, *_) = both(world)
    near = {"rel": 1e-9, "abs": 1e-6}
    assert len(one.trades) == len(other.trades)
    for tick, mirror in zip(one.trades, other.trades, strict=True):
        assert (tick.strategy_name, tick.symbol) == (mirror.strategy_name, mirror.symbol)
        assert tick.signal.side == -mirror.signal.side
        for name in ("close_timestamp", "close_reason", "ambiguous"):
            assert getattr(tick, name) == getattr(mirror, name)
        for leg, there in zip(tick.legs, mirror.legs, strict=True):
            assert (leg.timestamp, leg.reason) == (there.timestamp, there.reason)
            assert leg.price == pytest.approx(MIRROR - there.price, **near)
            assert leg.quantity == pytest.approx(there.quantity, **near)
        mine, theirs = tick.money, mirror.money
        assert mine.quantity == pytest.approx(theirs.quantity, **near)
        before_costs = [m.profit + m.fees + m.slippage for m in (mine, theirs)]
        assert before_costs[0] == pytest.approx(before_costs[1], **near)
        assert not mine.liquidated
        assert not mine.reduced
    assert one.account.tally.refusals == other.account.tally.refusals
    if world.config["percent_fee"] == 0:
        equities = [[t.money.equity_before for t in s.trades] for s in (one, other)]
        assert equities[0] == pytest.approx(equities[1], **near)
        curve, there = one.data.curve, other.data.curve
        assert np.array_equal(curve.timestamp, there.timestamp)
        assert curve.equity == pytest.approx(there.equity, **near)
        assert curve.balance == pytest.approx(there.balance, **near)
