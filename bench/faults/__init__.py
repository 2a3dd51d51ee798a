"""The fault bench: rollouts under load while servers are killed and the trainer fails, and what became of each.

``plan`` says what happens when, ``load`` sends the inits, ``server`` and ``trainer`` are the two sides that fail,
``agent`` is what is served, ``ledger`` keeps the accounts, and ``__main__`` is the command.
"""
