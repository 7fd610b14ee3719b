"""Networks as data: a card with weights, the nets that cards name, their features and logits."""
