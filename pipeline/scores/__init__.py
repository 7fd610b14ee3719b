"""Raw scores of images, one pure function per file, over arrays of n rows.

Each score becomes a raw column of the pool (pipeline/scores/columns.py), which is written once per
embedded corpus and serves every method. COLUMNS in that file describes each column. A method puts
the columns on one scale (pipeline/selection/scale.py) and adds them to `score`; higher is better. A
new combination needs no new embedding.
"""
