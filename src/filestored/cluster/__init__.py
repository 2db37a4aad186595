"""Several daemons over one bucket and one catalogue: who there is, who leads, and how one passes a request on.

daemons (this one and the others) · lease (what only one does) · passes (what proves that a request was passed on) ·
connection (a request to another daemon) · incarnation (one id, one daemon) · address (where the others reach this one)
"""
