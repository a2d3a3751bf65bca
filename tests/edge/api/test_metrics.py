"""Figures as Prometheus expects them, with nothing in them that a caller could make up."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

LABELS = {"route", "method", "status", "lane", "outcome", "rung", "reason", "submodel", "book", "part", "le"}
UNITS = ("_seconds", "_bytes")


@pytest.fixture(scope="module")
def families(agent):
    with agent.client() as client:
        for user in ("ada", "bo", "nobody"):
            client.post("/v1/recommendations", json={"user": user})
            client.post(f"/v1/{user}", json={})
        return list(text_string_to_metric_families(client.get("/metrics").text))


def test_names_say_kind_and_unit(families):
    kinds = {family.name: family.type for family in families}
    assert kinds["hanse_edge_requests"] == "counter"
    assert kinds["hanse_edge_request_seconds"] == "histogram"
    assert kinds["process_resident_memory_bytes"] == "gauge"
    for family in families:
        assert family.documentation
        if family.type == "histogram":
            assert family.name.endswith(UNITS), family.name
        if family.type == "counter":
            samples = {sample.name for sample in family.samples} - {f"{family.name}_created"}
            assert samples <= {f"{family.name}_total"}, family.name


def test_labels_are_a_closed_set(families):
    found = {label for family in families for sample in family.samples for label in sample.labels}
    assert found - LABELS == set()
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert not values & {"ada", "bo", "nobody"}
    assert not any(value.startswith("/v1/nobody") for value in values)
