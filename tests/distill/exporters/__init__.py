"""How students leave: programs, 8 bits, model cards."""
