"""One corpus a file: `CORPUS=<file name>` finds it, and `corpus()` returns its parts."""
