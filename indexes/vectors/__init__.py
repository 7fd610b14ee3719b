"""The one door to FAISS: build, search and tune an index of feature vectors."""
