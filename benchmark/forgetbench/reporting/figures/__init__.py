"""Pictures of boards: each is one Altair specification, saved as SVG, PNG, PDF or a page that needs nothing else.

They are meant for a paper's column: light background, letters of 7 points and more, colors that the color-blind tell
apart, and shapes that say the same as the colors.
"""
