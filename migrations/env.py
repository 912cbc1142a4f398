"""Runs one branch of our migrations: on a connection that is handed in, on a URL, or as a script of SQL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from orchestrator.sql.revisions import branch_named

config = context.config
branch = branch_named(config.get_main_option("branch") or "orchestrator")
schema = config.attributes.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")


def configure(**where: object) -> None:
    context.configure(
        target_metadata=branch.metadata(schema),
        version_table=branch.version_table,
        version_table_schema=schema,
        include_schemas=schema is not None,
        include_object=branch.includes,
        transactional_ddl=True,
        **where,
    )


def run(connection: Connection) -> None:
    configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


def online() -> None:
    given = config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    with create_engine(config.get_main_option("sqlalchemy.url") or "").connect() as connection:
        run(connection)


def offline() -> None:
    configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        if schema is not None:
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    online()
