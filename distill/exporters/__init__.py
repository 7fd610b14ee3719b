"""The export of students as programs for devices.

`run` holds the whole of `winnow export`. `formats` writes .onnx and .pt2 files and checks on
`sample_images` that they give the student's logits. `quantize` makes the 8-bit file. `model_card`
describes the files in words. `directory` replaces an existing export only by a complete one.
"""
