"""One pure loss a file: tensors [B, ...] in, values [B] out; weights and means are the caller's."""
