"""How a student leaves: `ship` writes its programs, checks each, and a model card.

`programs` are .onnx and .pt2 files, and the check that they answer as the student does on a
`handful` of images; `quantize` makes 8 bits of them; `modelcard` says it in words.
"""
