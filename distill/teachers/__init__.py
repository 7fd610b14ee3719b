"""Directories of teachers: imported from elsewhere, or trained on a labeled set.

`import_teacher` reads a vendor's `files`, with the `preprocessing` of the net's library, and turns
a `clip` model into a zero-shot classifier; `train_teacher` trains a net. `config` is their options.
"""
