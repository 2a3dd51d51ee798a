"""The hostile bench: what a server holds and how it answers while callers and trainers try to use it up.

``attacks`` has what they send, in a process of its own; ``__main__`` starts the server, watches it, and is the command.
"""
