"""Images from their bytes: decode, orient, resize and reduce to thumbnails."""
