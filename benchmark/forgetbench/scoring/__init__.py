"""Evidence to scorecard to ranking (protocol). Nothing is imported here: a server's pages need the records alone.

`score` is the way in: `comparisons` (metrics of two populations), `bands` (what a board knows before anybody submits),
`score` (a contestant's scorecard), `gates` (utility gate and flags), `ranking`; `scorecards` holds the records. `audit`
judges the metrics themselves, `external` scores logits of other suites.
"""
