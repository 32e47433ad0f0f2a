"""Walks: whole backtests of many strategies, compared, resumed and spread over workers."""
