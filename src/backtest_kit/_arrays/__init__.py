"""Array strategies: signals as columns, the compiled kernel, the check for peeking."""
