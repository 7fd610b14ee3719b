"""One pure function a file: (pool, ...) -> float32 [N], higher = closer to the lost original."""
