"""Blobs in a bucket: ``<prefix>/ab/abcdef…``, on S3, Google Cloud Storage or Azure, by obstore."""
