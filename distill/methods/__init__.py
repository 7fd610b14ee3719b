"""The online half of a method a file: a frozen `Config` and a `Method` subclass."""
