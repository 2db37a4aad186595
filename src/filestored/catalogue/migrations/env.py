"""Alembic's entry point: runs the migrations on the connection that the catalogue hands over."""

from alembic import context

from filestored.catalogue.indexes import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema,
    # SQLite cannot alter most of a table in place
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
