"""Networks as data: a card with weights, the nets that cards name, and what they answer."""
