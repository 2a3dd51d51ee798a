"""Whether spans are wanted, as the environment says, and what they are sent with.

The variables are OpenTelemetry's own: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import TracerProvider

logger = logging.getLogger(__name__)

SERVICE_NAME = "osmosis-rollout-server"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wants_spans(environment: Mapping[str, str]) -> bool:
    """Whether an exporter is named, and nothing switched off."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environment.get(name) for name in _ENDPOINTS)


def provider() -> "TracerProvider | None":
    """The process's tracer provider: the one that is set up already, else a new one; ``None``, with a warning, without
    the extra ``otel``."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        logger.warning("OTEL_* variables ask for spans, but the extra is missing: pip install osmosis-ai[otel].")
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    existing = trace.get_tracer_provider()
    if isinstance(existing, TracerProvider):
        return existing
    exporter = _exporter(os.environ)
    if exporter is None:
        return None
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    about = {"service.version": PACKAGE_VERSION, **({} if named else {"service.name": SERVICE_NAME})}
    # Spans are flushed when the app ends; waiting for a collector at the end of the process could take for ever.
    made = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(made)
    return made


def _exporter(environment: Mapping[str, str]) -> "SpanExporter | None":
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp" or protocol not in (None, "", "http/protobuf"):
        logger.warning(
            "No spans: set OTEL_TRACES_EXPORTER to otlp or console, and OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf."
        )
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        logger.warning("No spans: the OTLP exporter is missing: pip install osmosis-ai[otel].")
        return None
    return OTLPSpanExporter()
