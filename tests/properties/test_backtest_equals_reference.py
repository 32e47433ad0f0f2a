"""Fast-forward, step by step and the slow reference give the same, to the last bit."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS, to_datetime
from markets import MINUTE, START, cases, market, script


def play(case, rows, *, step_by_step, is_async=False, chunk=131_072):
    """Run a case on a new engine and return the transitions as the reference writes them."""
    proposals = script(case.seed, case.ask_rate, case.coarse)
    told = []

    def get_signal(symbol, when):
        return proposals(int(when.timestamp() * 1000), bk.average_price(symbol))

    async def get_signal_async(symbol, when):
        return proposals(int(when.timestamp() * 1000), await bk.get_average_price(symbol))

    def on_partial(event):
        told.append(("partial", event.timestamp, event.level))

    callbacks = {
        "on_open": lambda x: told.append(("opened", x.timestamp, x.signal.price_open)),
        "on_schedule": lambda x: told.append(("scheduled", x.timestamp, x.signal.price_open)),
        "on_cancel": lambda x: told.append(("cancelled", x.timestamp, x.reason)),
        "on_close": lambda x: told.append(
            (
                "closed",
                x.close_timestamp,
                x.close_reason,
                x.pnl.price_close,
                x.pnl.pnl_percentage,
                x.ambiguous,
            )
        ),
        "on_partial_profit": on_partial,
        "on_partial_loss": on_partial,
    }
    with bk.Engine() as engine:
        engine.set_config(**case.config, candles_per_chunk=chunk)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(START),
            end_date=to_datetime(START) + timedelta(minutes=case.minutes * 3 // 4),
        )
        bk.add_strategy(
            strategy_name="s",
            interval=case.interval,
            get_signal=get_signal_async if is_async else get_signal,
            callbacks=callbacks,
        )
        if step_by_step:
            bk.listen_signal(lambda tick: None)
        try:
            results = bk.Backtest.run_sync(
                "X", strategy_name="s", exchange_name="frame", frame_name="f"
            )
        except bk.ConfigError:  # no frame is the close of a candle of the interval
            line, interval = bk.list_frames()[0].timeline, INTERVALS[case.interval]
            assert case.config["ask_at"] == "close"
            assert all(when % interval for when in line)
            return told
        except bk.DataRangeError:  # the only frame is the instant at which the data begin
            assert len(bk.list_frames()[0].timeline) == 1
            return told
        record = engine.records.select(mode="backtest")[0]
        assert [r.close_timestamp for r in results] == [t[1] for t in told if t[0] == "closed"]
        unexpected = [
            k for k in record.error_kinds if "SignalError" not in k[1] and "DataRange" not in k[1]
        ]
        assert not unexpected, unexpected
    return told


def expected(case, rows):
    return reference.backtest(
        rows,
        START,
        START + case.minutes * 3 // 4 * MINUTE,
        INTERVALS[case.frame],
        INTERVALS[case.interval],
        script(case.seed, case.ask_rate, case.coarse),
        case.config,
    )


@given(cases)
def test_fast_forward_equals_the_reference(case):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    assert play(case, rows, step_by_step=False) == expected(case, rows)


@given(cases)
def test_step_by_step_equals_the_reference(case):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    assert play(case, rows, step_by_step=True) == expected(case, rows)


@given(cases)
def test_an_async_strategy_gives_the_same(case):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    assert play(case, rows, step_by_step=False, is_async=True) == expected(case, rows)


@given(cases, st.sampled_from([1000, 1001, 1440]))
def test_the_size_of_chunks_changes_nothing(case, chunk):
    case = case._replace(minutes=case.minutes * 5)
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    whole = play(case, rows, step_by_step=False)
    assert play(case, rows, step_by_step=False, chunk=chunk) == whole
