"""Other projects that train the same pair, one file per project.

`make(pair, workers)` returns the training loop and raises ImportError if the project is not
installed. SETUP describes how it runs. All take their images from the dataset of the naive loop.
"""
