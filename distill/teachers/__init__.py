"""Teacher directories: imported from a checkpoint, or trained on a labeled set.

`import_teacher` reads a checkpoint (`files`), takes the input settings of its library
(`preprocessing`), and turns a CLIP model into a zero-shot classifier (`clip`). `train_teacher`
trains a net. `config` holds the options of both commands.
"""
