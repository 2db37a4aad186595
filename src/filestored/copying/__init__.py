"""Copying one store into another, verified and resumable: folders and servers, in any combination.

::

    entries     what there is to copy, and what both sides promise
    folders     a store's folder, as either side: everything goes over
    servers     a server, as either side: what HTTP allows
    ledger      what has been copied from where, so that a later run knows what has gone since
    copier      goes through the one and brings to the other what it lacks
"""
