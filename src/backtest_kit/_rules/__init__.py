"""The life of a signal: pure functions of its numbers and the market at a step."""
