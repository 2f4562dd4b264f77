"""Running a task: typed jobs, engines, artifacts, progress."""
