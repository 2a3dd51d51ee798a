"""What ``/metrics`` says, read by Prometheus's own parser."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One answer of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self.families: list[Any] = list(text_string_to_metric_families(text))
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 for one that is not there yet."""
        return self._values.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (sample, _), value in self._values.items() if sample == name)

    @property
    def samples(self) -> dict[str, set[str]]:
        """The label names of each sample."""
        found: dict[str, set[str]] = {}
        for name, labels in self._values:
            found.setdefault(name, set()).update(label for label, _ in labels)
        return found

    def values(self, label: str) -> set[str]:
        """Every value of ``label``."""
        return {value for _, labels in self._values for name, value in labels if name == label}
