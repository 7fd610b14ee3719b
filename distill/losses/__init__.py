"""Pure losses, one per file: tensors [B, ...] in, values [B] out; the caller takes the mean."""
