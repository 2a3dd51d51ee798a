"""A new agent project, made of this project's example: the library behind ``osmosis init``.

``project/`` is laid out as what is written, without the example's own files: a wheel has them in there, in a checkout
they lie at the top. ``source`` finds out where the new project gets this SDK from, ``create`` writes it.
"""
