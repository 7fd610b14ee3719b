"""Methods of distillation, one per file: a frozen `Config` and a subclass of `Method`."""
