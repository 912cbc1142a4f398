"""Spans as OpenTelemetry's SDK exports them, kept in memory."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """What was traced."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = self.provider.get_tracer("tests")

    def all(self) -> list[ReadableSpan]:
        return sorted(self._kept.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """Each span behind its parent's name, in the order they began."""
        names = {span.context.span_id: span.name for span in self.all()}
        return [f"{names[s.parent.span_id] if s.parent else ''} > {s.name}" for s in self.all()]

    def __getitem__(self, name: str) -> ReadableSpan:
        return next(span for span in self.all() if span.name == name)

    def orphans(self) -> list[str]:
        """Names of spans whose parent was never exported."""
        known = {span.context.span_id for span in self.all()}
        return [span.name for span in self.all() if span.parent and span.parent.span_id not in known]

    def traces(self) -> set[int]:
        """Ids of all traces."""
        return {span.context.trace_id for span in self.all()}
