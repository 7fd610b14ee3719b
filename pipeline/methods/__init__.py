"""Selection methods, one per file: a frozen `Config` and `score(pool, config, seed)`."""
