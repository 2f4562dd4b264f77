"""Import models and logits that other code produced."""
