"""ForgetBench: the benchmark suite for machine unlearning in image classifiers, with its leaderboard."""
