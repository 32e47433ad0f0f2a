"""One measurement in a process of its own: `python -m benchmarks.peers.worker JOB`, both JSON.

A job names `who`, the file of `prices` and how many `rows` of it, `sets`, `life`, and `repeats`
(0: nothing is run, which tells the memory that all begin with); `trades` is a file to write.
"""

import importlib.metadata
import json
import sys
import time

import numpy as np

from benchmarks.peers.rules import peak

OWN = ("trial", "with_arrays", "with_sums", "with_means", "walk")


def maker(who):
    if who in OWN:
        from benchmarks.peers import own

        return getattr(own, who)
    from benchmarks.peers import others

    return getattr(others, who)


def measure(who, prices, rows, sets, life, repeats, trades=None):
    make, close = maker(who), np.array(np.load(prices, mmap_mode="r")[:rows])
    sets = tuple(map(tuple, sets))
    make(close[: min(rows, 5000)].copy(), sets[: 1 if len(sets) == 1 else 2], life)[0]()  # compile
    run, trades_of = make(close, sets, life)
    if not repeats:
        return {"peak": peak()}
    began = time.perf_counter()
    found = run()
    times, most = [time.perf_counter() - began], peak()
    if trades:
        np.savez(trades, *trades_of(found))
    del found
    for _ in range(repeats - 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return {"seconds": min(times), "peak": most}


def versions(names):
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def main():
    job = json.loads(sys.argv[1])
    print(json.dumps(versions(job["versions"]) if "versions" in job else measure(**job)))


if __name__ == "__main__":
    main()
