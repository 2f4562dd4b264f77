"""Training and prediction: compute settings, batches, the training loop."""
