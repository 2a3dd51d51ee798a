"""What a server tells about itself: metrics, traces (OpenTelemetry) and logs.

The server knows one thing of all this, ``observer``: an ``Observer`` an app and a ``RolloutWatch`` a rollout, told of
each step. ``metrics`` counts, ``otel`` makes spans; both are imported only where they are switched on. ``logs`` formats
what the ``logging`` module carries.
"""
