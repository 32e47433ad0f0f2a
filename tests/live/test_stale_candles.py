"""Commands while candles are late: they are done at a price of now, or wait."""

import backtest_kit as bk
from live.world import T0, Stage, flat, once, running
from markets import MINUTE


def test_a_command_waits_while_the_newest_candle_is_missing():
    with bk.Engine() as engine:
        engine.set_config(get_candles_retry_delay_ms=0)
        answer = once(T0 + MINUTE, minute_estimated_time=300)
        stage = Stage(flat(), answer=answer, feed_wait_ms=1000)
        honest, state, commands = stage.venue.get_candles, ["well"], []

        async def get_candles(symbol, interval, since, limit):
            if state[0] == "down":
                raise ConnectionError("503")
            candles = await honest(symbol, interval, since, limit)
            late = state[0] == "late"
            return [c for c in candles if not late or c.timestamp < T0 + 40 * MINUTE]

        bk.add_exchange(exchange_name="late", get_candles=get_candles)
        names = {"strategy_name": "s", "exchange_name": "late"}
        bk.listen_command(commands.append)

        async def main():
            async with running(bk.Live.background("X", **names)):
                await stage.world.until(T0 + 5 * MINUTE)
                state[0] = "down"
                await stage.world.until(T0 + 90 * MINUTE)
                await bk.Live.send("X", **names, action="close")
                state[0] = "late"
                await stage.world.until(T0 + 95 * MINUTE)
                early = [*commands]
                state[0] = "well"
                await stage.world.until(T0 + 98 * MINUTE)
                return early

        assert stage.world.run(main()) == []
        (answered,) = commands
        assert answered.outcome == "done"
        assert answered.timestamp >= T0 + 95 * MINUTE
