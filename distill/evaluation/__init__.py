"""How good a student is and what it costs.

`run` is the whole of `winnow evaluate`. One pass over a labeled set serves any number of nets
(`accuracy`, with `calibration`); `compare` puts them beside each other with their `cost` and their
`pareto` front; `report` writes that as a `table`, a chart (`plot`) and a page (`html`).
"""
