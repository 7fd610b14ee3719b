"""One pure loss a file: tensors [B, ...] in, per-sample values [B] out; weights and means are the caller's."""
