"""Networks and teachers: cards with weights, the nets they name, their features and logits."""
