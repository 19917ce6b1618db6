"""Reading of tables from outside: delimited text, JSON lines and Parquet, within limits of size."""
