"""The load: a trainer and its inits, lean enough that the server is the limit.

``script`` says what is sent and what must come back, ``http1`` reads and writes it, ``trainer`` plays the model and
checks every result, ``generator`` sends the inits, ``tally`` counts.
"""
