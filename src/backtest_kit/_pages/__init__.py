"""HTML pages: a backtest, a walk and a live run as one self-contained file each, and figures."""
