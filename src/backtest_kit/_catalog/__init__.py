"""A catalog: a folder of candles in Parquet, a file a month, with what is known of each."""
