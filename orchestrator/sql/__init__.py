"""Sagas in a SQL database, through SQLAlchemy: PostgreSQL and SQLite."""
