"""Working with a leaderboard server: pull a board, submit, verify."""
