"""Values: candles, signals, results, events, settings, errors, time. They know no engine."""
