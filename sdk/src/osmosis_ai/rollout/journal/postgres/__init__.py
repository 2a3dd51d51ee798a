"""The journal in PostgreSQL (extra ``postgres``): ``journal`` keeps the contract, nothing here is imported before use.

``address`` (the URL), ``libpq`` (what is beside it), ``link`` (a connection), ``explain`` (its errors), ``schema``
(tables and their version), ``statements`` (what is asked), ``lease`` (who lives), ``batches`` (shared commits),
``home`` (their thread).
"""
