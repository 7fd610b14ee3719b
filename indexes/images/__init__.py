"""One image from its bytes: decode, orient, resize, thumbnail."""
