"""How students are measured and compared."""
