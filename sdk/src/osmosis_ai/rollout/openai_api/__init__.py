"""OpenAI's chat API in front of a function: a client without a socket, and an endpoint on the loopback interface.

It is below everything else here, and knows nothing of rollouts: whoever has chat calls to answer makes a ``ChatApi``.
"""
