"""Live runs: the driver over minutes, and the order of writes."""
