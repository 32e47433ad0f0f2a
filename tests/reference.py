"""The semantics once more: slow and obvious, a step a minute, written from the specification.

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


def fill_gaps(rows):
    """Missing minutes become flat candles at the previous close."""
    whole = [rows[0]]
    for row in rows[1:]:
        while whole[-1][0] + MINUTE < row[0]:
            close = whole[-1][4]
            whole.append((whole[-1][0] + MINUTE, close, close, close, close, 0.0))
        whole.append(row)
    return whole


def is_valid(p, price, config):
    entry = p.get("price_open")
    long = p["position"] == "long"
    now = entry is None or (price <= entry if long else price >= entry)
    tp, sl, life = p["price_take_profit"], p["price_stop_loss"], p["minute_estimated_time"]
    for level in {entry if entry is not None else price, price if now else entry}:
        if not (sl < level < tp if long else tp < level < sl):
            return False
    at = price if now else entry
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
    return 1 <= life <= config["max_signal_lifetime_minutes"]


def pnl(long, opened, closed, config):
    s, f = config["percent_slippage"] / 100, config["percent_fee"]
    if long:
        a, b = opened * (1 + s), closed * (1 - s)
        return (b - a) / a * 100 - 2 * f
    a, b = opened * (1 - s), closed * (1 + s)
    return (a - b) / a * 100 - 2 * f


def scheduled(sig, t, p, row, config):
    long, entry, sl = sig["position"] == "long", sig["entry"], sig["price_stop_loss"]
    expired = (t - sig["scheduled_at"]) // MINUTE >= config["schedule_await_minutes"]
    if config["exit_trigger"] == "vwap":
        if expired:
            return "timeout"
        if (p <= sl) if long else (p >= sl):
            return "price_reject"
        return "activate" if ((p <= entry) if long else (p >= entry)) else None
    _, o, h, low, _, _ = row
    if (o <= sl) if long else (o >= sl):
        return "price_reject"
    if (low <= entry) if long else (h >= entry):
        return "both" if ((low <= sl) if long else (h >= sl)) else "activate"
    return "timeout" if expired else None


def pending(sig, t, p, row, config):
    """Return (reason, price, ambiguous) or None."""
    long, tp, sl = sig["position"] == "long", sig["price_take_profit"], sig["price_stop_loss"]
    expired = (t - sig["pending_at"]) // MINUTE >= sig["minute_estimated_time"]
    if config["exit_trigger"] == "vwap":
        if expired:
            return "time_expired", p, False
        if (p >= tp) if long else (p <= tp):
            return "take_profit", tp, False
        if (p <= sl) if long else (p >= sl):
            return "stop_loss", (min(sl, p) if long else max(sl, p)), False
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
    return ("time_expired", p, False) if expired else None


def backtest(rows, start, end, frame_step, interval, script, config):
    """Return the transitions as tuples, in order."""
    count = config["avg_price_candles_count"]
    rows = fill_gaps(rows)
    out, sig, last_call, last_close = [], None, None, None
    for k in range(len(rows)):
        t = rows[k][0] + MINUTE
        if t < start:
            continue
        if k + 1 < count:
            continue
        p, row = average(rows[: k + 1], count), rows[k]
        if sig is not None and sig["pending_at"] is None:
            verdict = scheduled(sig, t, p, row, config)
            if verdict in ("timeout", "price_reject"):
                out.append(("cancelled", t, verdict))
                sig, last_close = None, t
            elif verdict is not None:
                sig["pending_at"] = t
                out.append(("opened", t, sig["entry"]))
                if verdict == "both":
                    sl = sig["price_stop_loss"]
                    out.append(closed(sig, t, ("stop_loss", sl, False), config))
                    sig, last_close = None, t
            continue
        if sig is not None:
            how = pending(sig, t, p, row, config)
            if how is not None:
                out.append(closed(sig, t, how, config))
                sig, last_close = None, t
            else:
                out += milestones(sig, t, p)
            continue
        if t > end:
            break
        if (t - start) % frame_step or (last_close is not None and t <= last_close):
            continue
        if last_call is not None and t - last_call < interval:
            continue
        last_call = t
        proposal = script(t, p)
        if proposal is None or not is_valid(proposal, p, config):
            continue
        entry, long = proposal.get("price_open"), proposal["position"] == "long"
        now = entry is None or (p <= entry if long else p >= entry)
        sig = dict(proposal, scheduled_at=t, pending_at=t if now else None, fired=set())
        sig["entry"] = p if now else entry
        out.append(("opened" if now else "scheduled", t, sig["entry"]))
    if sig is not None:
        t = rows[-1][0] + MINUTE
        if sig["pending_at"] is None:
            out.append(("cancelled", t, "end_of_data"))
        else:
            p = average(rows, count)
            out.append(closed(sig, t, ("end_of_data", p, False), config))
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
