"""Charts of boards: each is a Vega-Lite specification, saved as SVG, PNG, PDF or a self-contained page.

They fit a paper's column: light background, letters of at least 7 points, colors that color-blind readers can
distinguish, and shapes that repeat what the colors say. The leaderboard draws its charts with the same code.
"""
