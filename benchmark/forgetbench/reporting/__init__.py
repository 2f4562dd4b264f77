"""Reports: tables, figures, significance across tasks, comparison with published numbers."""
