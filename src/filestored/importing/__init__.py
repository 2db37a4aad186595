"""Bringing files into a store from elsewhere, with proof that they are the same bytes.

::

    detection   which kind of source it is, told by looking
    source      what every source gives: items, and their bytes in pieces
    folder      a tree of files, filebrowser's too · blobs  a store · bucket  S3 · transfersh  transfer.sh's folder
    report      what became of each item, a JSON line each, durable; the journal from which a later run goes on
    importer    reads several items at a time, proves their bytes, adds them
"""
