"""What an image can be looked at for: one pure function a file, over arrays of n rows.

Each becomes a raw column of the pool (pipeline/scores/columns.py), written once per embedded corpus
whatever the method: log_odds, entropy, energy, outlier, local, scarcity, compactness, bn and
class_name. A method reads them, puts them on one scale (normalize.py) and adds them up to `score`,
of which higher is better: a new combination needs no new embedding.
"""
