"""The offline half of a method a file: a frozen `Config` and `score(pool, config, seed)`."""
