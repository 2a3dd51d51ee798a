"""Contender (b): FastAPI with request validation, and the same pooled client as the floor's."""

from bench.contenders.pooled import PooledRollouts
from bench.contenders.validated import fastapi_app

app = fastapi_app(PooledRollouts().start)
