"""The fault bench: rollouts under load while everything around them fails, and what became of each.

``kinds`` has the faults, each a name and what it does; ``plan`` says which happens when; ``load`` sends the inits;
``server`` and ``trainer`` are the two sides that fail, ``clock`` is the servers' wall clock, ``agent`` is what is
served, ``ledger`` keeps the accounts, and ``__main__`` is the command.
"""
