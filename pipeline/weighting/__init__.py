"""One weight per selected image, mean 1."""
