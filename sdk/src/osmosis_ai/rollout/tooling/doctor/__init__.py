"""What is wrong with a set-up, found before a rollout fails of it: the library behind ``osmosis doctor``.

``types`` is the vocabulary. A module a subject (``agent``, ``address``, ``trainer``, ``storage``, ``configuration``,
``environment``, ``model``, ``dataset``) holds its checks, functions from a ``Case`` to a ``Finding``, below the report
they read. ``case`` has each report gathered once, however many checks ask at the same time. ``examination`` runs all
checks side by side within a time limit. Nothing is changed: what does not exist yet is not made.
"""
