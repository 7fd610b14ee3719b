"""Each loss four ways: a slow double loop, the formula re-typed, properties, bad shapes."""
