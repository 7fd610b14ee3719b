"""The accuracy and the cost of students.

`run` holds the whole of `winnow evaluate`. `accuracy`, with `calibration`, measures any number of
nets in one pass over a labeled set. `compare` combines these results with the `cost` of each net
and marks the `pareto` front. `report` writes the comparison as a `table`, a chart (`plot`) and a
page (`html`).
"""
