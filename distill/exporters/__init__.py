"""Students as programs for devices.

`run` is the whole of `winnow export`: `formats` writes .onnx and .pt2 files and checks that they
give the student's logits on `sample_images`; `quantize` makes 8 bits of them; `model_card` says in
words what they are; `directory` replaces an export only by a whole one.
"""
