"""Runs submitted methods in a sandbox: what ``forgetbench runner`` does, and how a method's process is confined.

The method's process gets an original, the examples that it asks for, and nothing else; it returns weights. Predictions
are made from these weights by this package's own code outside the sandbox, so test images and labels never enter it.
"""
