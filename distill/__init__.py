"""The training stage, once per student: stream, views, losses, step, evaluate."""
