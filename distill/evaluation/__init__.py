"""What a student is worth: `evaluate` how good it is, `cost` what it costs, `report` tells both.

One pass over a labeled set serves any number of nets (`evaluate`, with `calibration`); `standings`
puts them beside each other with their `cost` and `pareto` front; `report` writes that as a `table`,
a picture (`chart`) and a `page`.
"""
