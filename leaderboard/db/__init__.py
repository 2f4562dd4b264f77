"""Database models, sessions, migrations, job queue, entry state machine."""
