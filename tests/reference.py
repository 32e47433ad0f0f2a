"""The semantics once more: slow and obvious, a step a candle, written from the specification.

The oracle of the property tests. It shares no code with the engine: plain floats and lists.
"""

import math

from reference_positions import Position, is_managed
from reference_positions import is_valid as management_is_valid

MINUTE = 60_000


def average(rows, count):
    """Volume-weighted typical price of the last `count` rows (t, o, h, l, c, v)."""
    price = weight = closes = 0.0
    for _, _, h, low, c, v in rows[-count:]:
        price += (h + low + c) / 3.0 * v
        weight += v
        closes += c
    return closes / count if weight == 0 else price / weight


def fill_gaps(rows, base=MINUTE):
    """Missing candles become flat ones at the previous close."""
    whole = [rows[0]]
    for row in rows[1:]:
        while whole[-1][0] + base < row[0]:
            close = whole[-1][4]
            whole.append((whole[-1][0] + base, close, close, close, close, 0.0))
        whole.append(row)
    return whole


def far_off(candle, closes):
    """A price is 20 times above or below both closes before."""
    _, _, high, low, _, _ = candle
    near = closes[-2:]
    return bool(near) and (high >= max(near) * 20 or low * 20 <= min(near))


def held(rows, filled):
    """Say of each candle, gaps being `filled`, if it is suspicious; one that is missing follows."""
    there, closes, last = {row[0] for row in rows}, [], False
    found = []
    for row in filled:
        if row[0] in there:
            last = far_off(row, closes)
            closes.append(row[4])
        found.append(last)
    return found


def without(rows, suspicious):
    """Candles as the average price sees them: nothing was traded in suspicious ones."""
    out = []
    for row, doubt in zip(rows, suspicious, strict=True):
        close = out[-1][4] if out else row[4]
        out.append((row[0], close, close, close, close, 0.0) if doubt else row)
    return out


def is_valid(p, average_price, market, config):
    """`market` is the price that fills; the average price decides later, unless by wicks."""
    entry = p.get("price_open")
    long = p["position"] == "long"
    now = entry is None or (market <= entry if long else market >= entry)
    tp, sl = levels(p)
    life = p["minute_estimated_time"]
    if p["price_stop_loss"] is None and config.get("require_stop_loss", True):
        return False
    between = set() if entry is None else {entry}
    if now:
        between.add(market)
        if config["exit_trigger"] == "vwap":
            between.add(average_price)
    for level in between:
        if not (sl < level < tp if long else tp < level < sl):
            return False
    at = market if now else entry
    profit = math.inf if p["price_take_profit"] is None else abs(tp - at) / at * 100
    no_stop = p["price_stop_loss"] is None
    loss = math.inf if no_stop else abs(sl - at) / at * 100
    lowest, least, most = (
        config["min_take_profit_distance_percent"],
        config["min_stop_loss_distance_percent"],
        config["max_stop_loss_distance_percent"],
    )
    hair = 1e-12
    lowest, least, most = lowest * (1 - hair), least * (1 - hair), most * (1 + hair)
    if (lowest and profit < lowest) or (least and loss < least):
        return False
    if most and loss > most and not no_stop:
        return False
    if not management_is_valid(p, at, config):
        return False
    longest = config["max_signal_lifetime_minutes"] or 100 * 366 * 1440
    return life is None or 1 <= life <= longest


def levels(sig):
    """Take profit and stop loss; what is not there lies where no price comes."""
    tp, sl = sig["price_take_profit"], sig["price_stop_loss"]
    far = math.inf if sig["position"] == "long" else -math.inf
    return far if tp is None else tp, -far if sl is None else sl


def expired(sig, t, config):
    life = sig["minute_estimated_time"]
    if life is None:
        life = config["max_signal_lifetime_minutes"] or math.inf
    return t - sig["pending_at"] >= life * MINUTE


def pnl(long, opened, closed, config):
    s, f = config["percent_slippage"] / 100, config["percent_fee"]
    if long:
        a, b = opened * (1 + s), closed * (1 - s)
        return (b - a) / a * 100 - 2 * f
    a, b = opened * (1 - s), closed * (1 + s)
    return (a - b) / a * 100 - 2 * f


def scheduled(sig, t, p, market, row, config):
    """Return None, or what happens and, for a fill, its price."""
    long, limit = sig["position"] == "long", sig["price_open"]
    tp, sl = levels(sig)
    over = t - sig["scheduled_at"] >= config["schedule_await_minutes"] * MINUTE
    if config["exit_trigger"] == "vwap":
        if over:
            return "timeout", None
        if (p <= sl) if long else (p >= sl):
            return "price_reject", None
        if (p > limit) if long else (p < limit):
            return None
        if not (sl < market < tp if long else tp < market < sl):
            return "price_reject", None
        return "activate", max(limit, market) if long else min(limit, market)
    _, o, h, low, _, _ = row
    if (o <= sl) if long else (o >= sl):
        return "price_reject", None
    if (low <= limit) if long else (h >= limit):
        return "both" if ((low <= sl) if long else (h >= sl)) else "activate", limit
    return ("timeout", None) if over else None


def pending(sig, t, p, market, row, config):
    """Return (reason, price, ambiguous) or None."""
    long, (tp, sl) = sig["position"] == "long", levels(sig)
    worse, over = min if long else max, expired(sig, t, config)
    if config["exit_trigger"] == "vwap":
        if over:
            return "time_expired", market, False
        if (p >= tp) if long else (p <= tp):
            return "take_profit", worse(tp, market), False
        if (p <= sl) if long else (p >= sl):
            return "stop_loss", worse(sl, market), False
        return None
    _, o, h, low, _, _ = row
    if (o <= sl) if long else (o >= sl):
        return "stop_loss", o, False
    if (o >= tp) if long else (o <= tp):
        return "take_profit", tp, False
    hits_tp = (h >= tp) if long else (low <= tp)
    hits_sl = (low <= sl) if long else (h >= sl)
    if hits_tp and hits_sl:
        first = config["ambiguous_candle"] == "stop_loss_first"
        return ("stop_loss", sl, True) if first else ("take_profit", tp, True)
    if hits_tp:
        return "take_profit", tp, False
    if hits_sl:
        return "stop_loss", sl, False
    return ("time_expired", market, False) if over else None


def backtest(
    rows,
    start,
    end,
    frame_step,
    interval,
    script,
    config,
    base=MINUTE,
    closed_at=None,
    exits=None,
    live=False,
):
    """Return the transitions as tuples, in order; nothing happens when a closed candle closes.

    `exits` says of a candle of the interval, by its close, whether nothing should be long, short.
    A `live` run goes on behind `end`, whatever the lifetimes.
    """
    count = config["avg_price_candles_count"]
    at_close = config["ask_at"] == "close"
    told, rows = rows, fill_gaps(rows, base)
    holds = config.get("suspicious_candle", "hold") == "hold"
    frame_is_all = config["max_signal_lifetime_minutes"] == 0 and not live
    if frame_is_all:
        rows = [row for row in rows if row[0] + base <= end]
    doubts = held(told, rows) if holds else [False] * len(rows)
    sound = without(rows, doubts)
    is_open = [
        not doubt and (closed_at is None or not closed_at(row[0]))
        for row, doubt in zip(rows, doubts, strict=True)
    ]
    out, sig, last_call, last_close, reverses = [], None, None, None, False

    def no_more(position, t):
        """Whether the newest candle of the interval says that nothing should be on this side."""
        return exits is not None and exits(t // interval * interval)[position == "short"]

    for k in range(len(rows)):
        t = rows[k][0] + base
        if t < start or not is_open[k]:
            continue
        if k + 1 < count:
            continue
        p, row = average(sound[: k + 1], count), rows[k]
        market = row[4] if config["fill_price"] == "market" else p
        lived = sig
        if sig is not None:
            sig = follow(sig, t, p, market, row, config, out)
            # the row of a candle that has just closed is read after the checks of the step
            says_exit = t % interval == 0 and no_more(lived["position"], t)
            if sig is not None and says_exit:
                if sig["pending_at"] is None:
                    out.append(("cancelled", t, "exit"))
                else:
                    end_position(sig, t, market, "closed", config, out)
                sig = None
            if sig is None:
                last_close, reverses = t, says_exit
        if sig is not None:
            continue
        if t > end or (frame_is_all and t == end // base * base):
            break
        if (t - start) % frame_step or (last_close == t and not at_close and not reverses):
            continue
        if at_close:
            if t % interval:
                continue
        elif last_call is not None and t - last_call < interval:
            continue
        last_call = t
        proposal = script(t, p)
        if proposal is None or no_more(proposal["position"], t):
            continue
        if not is_valid(proposal, p, market, config):
            continue
        entry, long = proposal.get("price_open"), proposal["position"] == "long"
        now = entry is None or (market <= entry if long else market >= entry)
        sig = dict(proposal, scheduled_at=t, pending_at=t if now else None, fired=set())
        sig["entry"] = market if now else entry
        out.append(("opened" if now else "scheduled", t, sig["entry"]))
        if now and is_managed(sig):
            sig["managed"] = Position(sig, t, market, p, config)
            sig["managed"].opening(t, p, market, row, waited=False)
            out += taken(sig)
    if sig is not None:
        end = max(k for k in range(len(rows)) if is_open[k]) + 1
        rows, sound = rows[:end], sound[:end]
        t = rows[-1][0] + base
        if sig["pending_at"] is None:
            out.append(("cancelled", t, "end_of_data"))
        else:
            market = rows[-1][4] if config["fill_price"] == "market" else average(sound, count)
            end_position(sig, t, market, "end_of_data", config, out)
    return out


def follow(sig, t, p, market, row, config, out):
    """What a step does to what lives; return it, or `None` where it has ended."""
    if sig["pending_at"] is None:
        turn = scheduled(sig, t, p, market, row, config)
        if turn is None:
            return sig
        if turn[0] in ("timeout", "price_reject"):
            out.append(("cancelled", t, turn[0]))
            return None
        sig["pending_at"], sig["entry"] = t, turn[1]
        out.append(("opened", t, sig["entry"]))
        if is_managed(sig):
            sig["managed"] = Position(sig, t, turn[1], p, config)
            sig["managed"].opening(t, p, market, row, waited=True)
            out += taken(sig)
            return None if sig["managed"].over else sig
        if turn[0] == "both":
            end_position(sig, t, sig["price_stop_loss"], "stop_loss", config, out)
            return None
        return sig
    if "managed" in sig:
        position = sig["managed"]
        position.step(t, p, market, row, expired=expired(sig, t, config))
        told = taken(sig)
        moves = [fact for fact in told if fact[0] == "moved"]
        out += [fact for fact in told if fact[0] != "moved"]
        if position.over:
            return None
        out += milestones(sig, t, p, position.entry) + moves
        return sig
    how = pending(sig, t, p, market, row, config)
    if how is not None:
        out.append(closed(sig, t, how, config))
        return None
    out += milestones(sig, t, p, sig["entry"])
    return sig


def taken(sig):
    """What has been told of a managed position since the last time."""
    told, sig["managed"].told = sig["managed"].told, []
    return told


def end_position(sig, t, price, reason, config, out):
    if "managed" in sig:
        sig["managed"].close(t, price, reason, False)
        out += taken(sig)
    else:
        out.append(closed(sig, t, (reason, price, False), config))


def closed(sig, t, how, config):
    reason, price, ambiguous = how
    profit = pnl(sig["position"] == "long", sig["entry"], price, config)
    return ("closed", t, reason, price, profit, ambiguous)


def milestones(sig, t, p, entry):
    move = p - entry if sig["position"] == "long" else entry - p
    revenue = move / entry * 100
    found = []
    for level in range(10, 101, 10):
        reached = level * int(math.copysign(1, revenue))
        if abs(revenue) >= level and reached not in sig["fired"]:
            sig["fired"].add(reached)
            found.append(("partial", t, reached))
    return found
