"""What an image can be looked at for: one pure function a file, over arrays of n rows.

Each becomes a raw column of the pool (pipeline/scores/columns.py), written once per embedded corpus
whatever the method; COLUMNS there says what each means. A method reads them, puts them on one scale
(pipeline/selection/scale.py) and adds them up to `score`, of which higher is better: a new
combination needs no new embedding.
"""
