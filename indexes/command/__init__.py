"""Commands: their options, log lines, progress and printed answers."""
