"""The OpenAPI description: generated, complete, and fit for validation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.service import bodies, reading
from xmodal.service.validation import field_names


@pytest.fixture(scope="module")
def description(service: Running) -> dict[str, Any]:
    answer: dict[str, Any] = service.get("/openapi.json").json()
    return answer


def operations(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_a_summary_an_example_and_problems(
    description: dict[str, Any],
) -> None:
    assert len(operations(description)) == 12
    for path, method, operation in operations(description):
        assert operation["summary"].endswith("."), path
        for status, response in operation["responses"].items():
            assert response["description"]
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"]
        assert {"421", "503"} <= set(operation["responses"])
        public = operation.get("security") == [{}]
        assert public == path.startswith("/health/") == ("401" not in operation["responses"])
        if method == "post":
            content = operation["requestBody"]["content"]["application/json"]
            schema = {**content["schema"], "components": description["components"]}
            Draft202012Validator(schema).validate(content["examples"]["one"]["value"])


def test_objects_have_no_other_fields_than_described(description: dict[str, Any]) -> None:
    for name, schema in description["components"]["schemas"].items():
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False, name


@pytest.mark.parametrize(
    "content",
    [
        {"text": "a"},
        {"typed": "a -b", "like": "c", "not": ["x"], "weights": {"not": 1}},
        {"text": "a", "k": 20.0, "offset": 9000, "radius": 0, "word_weight": 3},
        {"text": "a", "where": {"f": "v", "g": [1, True], "h": {"gte": 1, "lt": "2"}}},
        {"text": "a", "where": {"f": {"any_case": {"prefix": "x"}, "all": [{"not": [2]}, 1.5]}}},
        {},
        {"k": 5},
        {"text": None},
        {"text": "a", "image": None},
        {"text": "a", "k": "5"},
        {"text": "a", "k": 5.5},
        {"text": "a", "k": False},
        {"text": "a", "min_confidence": "0.5"},
        {"text": "a", "min_confidence": True},
        {"text": 5},
        {"text": "a", "weights": {"image": "1"}},
        {"text": "a", "weights": {"words": 1}},
        {"text": "a", "weights": None},
        {"text": "a", "not": "b"},
        {"text": "a", "not_": ["b"]},
        {"text": "a", "where": {"": 1}},
        {"text": "a", "where": {"f": {}}},
        {"text": "a", "where": {"f": {"gt": True}}},
        {"text": "a", "where": {"f": {"exists": 1}}},
        {"text": "a", "where": {"f": {"not": {"all": [1]}}}},
        {"text": "a", "where": {"f": [[1]]}},
        {"text": "a", "where": {"f": [None]}},
        {"text": "a", "target": "both"},
        {"text": "a", "other": 1},
    ],
    ids=repr,
)
def test_validation_agrees_with_the_description(description: dict[str, Any], content: Any) -> None:
    schema = {"$ref": "#/components/schemas/Search", "components": description["components"]}
    try:
        reading.validate(bodies.Search, content, "body")
        accepted = True
    except reading.RequestError as error:
        accepted = False
        assert error.status == 422 and "\n" not in str(error)
    assert accepted == Draft202012Validator(schema).is_valid(content)


def test_security_scheme_is_a_bearer_token(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path, token="correct horse battery") as service:
        description = service.get("/openapi.json").json()
    (name,) = description["components"]["securitySchemes"]
    assert description["components"]["securitySchemes"][name]["scheme"] == "bearer"
    assert description["security"] == [{name: []}]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ({"text": "a", "colour": 1, "size": 2}, "body has unknown fields: 'colour', 'size'"),
        ({"text": "a", "where": {"f": {"like": 1}}}, "body['where']['f'] has unknown fields"),
        ({"text": "a", "where": {"list": [1, None]}}, "body['where']['list'][1]: found null"),
        ({"text": "a", "k": "20"}, "body['k']: found '20', expected a valid integer"),
        ({"text": "a", "by": "sound"}, "body['by']: found 'sound', expected 'both'"),
        ({"k": 3}, "body has k, expected at least one of text, typed, image, like"),
        ([], "body: found a list of 0, expected"),
    ],
    ids=repr,
)
def test_error_has_the_place_and_what_was_expected(content: Any, detail: str) -> None:
    with pytest.raises(reading.RequestError) as error:
        reading.validate(bodies.Search, content, "body")
    assert str(error.value).startswith(detail)


def test_reference_has_every_path_and_every_field_of_a_search(
    description: dict[str, Any],
) -> None:
    text = Path(__file__).parents[2].joinpath("docs", "rest.md").read_text("utf-8")
    first_columns = [line.split(" | ")[0] for line in text.splitlines() if line[:3] == "| `"]
    names = {name for column in first_columns for name in re.findall("`([^`]*)`", column)}
    requests = {f"{method.upper()} {path}" for path, method, _ in operations(description)}
    assert {name.partition("?")[0] for name in names if "/" in name} == requests
    assert {name for name in names if "/" not in name} == set(field_names(bodies.Search))
