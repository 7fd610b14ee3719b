"""Named corpora, one per file: `--corpus FILE_NAME` selects a file, `corpus()` gives its parts."""
