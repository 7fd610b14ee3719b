"""Build, tune and search an index of feature vectors; the only package that imports FAISS."""
