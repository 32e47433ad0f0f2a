"""Several runs on one account."""
