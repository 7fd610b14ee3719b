"""Other projects on the same pair, a file each: `make(pair, workers)`, and SETUP says how it runs.

ImportError where it is not installed. All take their images from the naive loop's dataset.
"""
