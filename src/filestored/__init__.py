"""filestored: a file storage daemon. POST a file, get its hash; GET it by the hash; DELETE it by the hash."""

__version__ = "0.1.0"
