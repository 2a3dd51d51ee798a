"""Running an agent loop over a dataset without a training server."""

__all__: list[str] = []
