"""Network definitions and their initialization, and pretrained checkpoints."""
