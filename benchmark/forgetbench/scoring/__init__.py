"""From evidence to scorecards and ranks (see the protocol).

`scorer` reads runs and reference bundles. `score` computes a scorecard from logits: `pairwise`, `per_model` and
`derived` have the three kinds of values, `bands` the oracle bands of a board, `gates` the utility gate and the flags,
`ranking` the ranks, and `scorecards` the records. Nothing is imported here, since pages need only the records.
"""
