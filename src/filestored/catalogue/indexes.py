"""The tables with all their indexes, for whoever makes or compares tables.

What is here is said in the words of both databases, and loads their dialects: whoever only asks does without.
"""

from sqlalchemy import Index

from filestored.catalogue.tables import IS_UNDER_WAY, files, schema, uploads

__all__ = ["schema"]

_EXPIRES = files.c.expires_at.isnot(None)

Index("ix_files_expires_at", files.c.expires_at, sqlite_where=_EXPIRES, postgresql_where=_EXPIRES)
Index("ix_uploads_owner", uploads.c.owner, uploads.c.flushed, sqlite_where=IS_UNDER_WAY, postgresql_where=IS_UNDER_WAY)
