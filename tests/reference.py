"""The semantics once more: slow and obvious, a step a candle, written from the specification.

The oracle of the property tests. It shares no code with the engine: plain floats and lists.
"""

import math

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
    tp, sl, life = p["price_take_profit"], p["price_stop_loss"], p["minute_estimated_time"]
    between = set() if entry is None else {entry}
    if now:
        between.add(market)
        if config["exit_trigger"] == "vwap":
            between.add(average_price)
    for level in between:
        if not (sl < level < tp if long else tp < level < sl):
            return False
    at = market if now else entry
    profit, loss = abs(tp - at) / at * 100, abs(sl - at) / at * 100
    lowest, least, most = (
        config["min_take_profit_distance_percent"],
        config["min_stop_loss_distance_percent"],
        config["max_stop_loss_distance_percent"],
    )
    hair = 1e-12
    lowest, least, most = lowest * (1 - hair), least * (1 - hair), most * (1 + hair)
    if (lowest and profit < lowest) or (least and loss < least) or (most and loss > most):
        return False
    longest = config["max_signal_lifetime_minutes"] or 100 * 366 * 1440
    return 1 <= life <= longest


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
    tp, sl = sig["price_take_profit"], sig["price_stop_loss"]
    expired = t - sig["scheduled_at"] >= config["schedule_await_minutes"] * MINUTE
    if config["exit_trigger"] == "vwap":
        if expired:
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
    return ("timeout", None) if expired else None


def pending(sig, t, p, market, row, config):
    """Return (reason, price, ambiguous) or None."""
    long, tp, sl = sig["position"] == "long", sig["price_take_profit"], sig["price_stop_loss"]
    worse = min if long else max
    expired = t - sig["pending_at"] >= sig["minute_estimated_time"] * MINUTE
    if config["exit_trigger"] == "vwap":
        if expired:
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
    return ("time_expired", market, False) if expired else None


def backtest(rows, start, end, frame_step, interval, script, config, base=MINUTE, closed_at=None):
    """Return the transitions as tuples, in order; nothing happens when a closed candle closes."""
    count = config["avg_price_candles_count"]
    at_close = config["ask_at"] == "close"
    told, rows = rows, fill_gaps(rows, base)
    holds = config.get("suspicious_candle", "hold") == "hold"
    doubts = held(told, rows) if holds else [False] * len(rows)
    sound = without(rows, doubts)
    is_open = [
        not doubt and (closed_at is None or not closed_at(row[0]))
        for row, doubt in zip(rows, doubts, strict=True)
    ]
    out, sig, last_call, last_close = [], None, None, None
    for k in range(len(rows)):
        t = rows[k][0] + base
        if t < start or not is_open[k]:
            continue
        if k + 1 < count:
            continue
        p, row = average(sound[: k + 1], count), rows[k]
        market = row[4] if config["fill_price"] == "market" else p
        if sig is not None and sig["pending_at"] is None:
            turn = scheduled(sig, t, p, market, row, config)
            if turn is not None and turn[0] in ("timeout", "price_reject"):
                out.append(("cancelled", t, turn[0]))
                sig, last_close = None, t
            elif turn is not None:
                sig["pending_at"], sig["entry"] = t, turn[1]
                out.append(("opened", t, sig["entry"]))
                if turn[0] == "both":
                    sl = sig["price_stop_loss"]
                    out.append(closed(sig, t, ("stop_loss", sl, False), config))
                    sig, last_close = None, t
        elif sig is not None:
            how = pending(sig, t, p, market, row, config)
            if how is not None:
                out.append(closed(sig, t, how, config))
                sig, last_close = None, t
            else:
                out += milestones(sig, t, p)
        if sig is not None:
            continue
        if t > end:
            break
        if (t - start) % frame_step or (last_close == t and not at_close):
            continue
        if at_close:
            if t % interval:
                continue
        elif last_call is not None and t - last_call < interval:
            continue
        last_call = t
        proposal = script(t, p)
        if proposal is None or not is_valid(proposal, p, market, config):
            continue
        entry, long = proposal.get("price_open"), proposal["position"] == "long"
        now = entry is None or (market <= entry if long else market >= entry)
        sig = dict(proposal, scheduled_at=t, pending_at=t if now else None, fired=set())
        sig["entry"] = market if now else entry
        out.append(("opened" if now else "scheduled", t, sig["entry"]))
    if sig is not None:
        end = max(k for k in range(len(rows)) if is_open[k]) + 1
        rows, sound = rows[:end], sound[:end]
        t = rows[-1][0] + base
        if sig["pending_at"] is None:
            out.append(("cancelled", t, "end_of_data"))
        else:
            market = rows[-1][4] if config["fill_price"] == "market" else average(sound, count)
            out.append(closed(sig, t, ("end_of_data", market, False), config))
    return out


def closed(sig, t, how, config):
    reason, price, ambiguous = how
    profit = pnl(sig["position"] == "long", sig["entry"], price, config)
    return ("closed", t, reason, price, profit, ambiguous)


def milestones(sig, t, p):
    move = p - sig["entry"] if sig["position"] == "long" else sig["entry"] - p
    revenue = move / sig["entry"] * 100
    found = []
    for level in range(10, 101, 10):
        reached = level * int(math.copysign(1, revenue))
        if abs(revenue) >= level and reached not in sig["fired"]:
            sig["fired"].add(reached)
            found.append(("partial", t, reached))
    return found
