"""Answers as they look, for `/openapi.json`, of routes that show none themselves."""

from typing import Any, Final

_ABOUT: Final = {
    "rec_id": "AAAAAwABAgMEBQYHCAkKCwwNDg8",
    "release": 3,
    "arm": None,
    "rung": "sequence",
    "degraded": False,
    "reasons": [],
    "skipped": [],
}
_TEA: Final = {"item": "i3", "score": 0.94, "title": "Green tea"}
_TRENDING: Final = {**_ABOUT, "rung": "trending", "items": [{**_TEA, "rise": 2.5}]}
_INDEX: Final = {"items": 12, "whole": True, "language": "english", "building": False}
_SCENARIO: Final = {"name": "home", "diversity": {"relevance": 0.8, "caps": {"category": 3}}, "built_in": False}
_PROMOTION: Final = {
    "name": "tea-week",
    "title": "A week of tea",
    "filter": {"category": ["tea"]},
    "start": "2026-11-20T00:00:00+00:00",
    "end": "2026-12-27T00:00:00+00:00",
    "data": {"banner": "/img/tea.webp"},
    "shown": 120,
    "running": True,
}
_EXPERIMENT: Final = {
    "name": "diverse-home",
    "state": "running",
    "unit": "user",
    "layer": "shop",
    "scenarios": ["home"],
    "start": "2026-11-21T16:55:28+00:00",
    "end": None,
    "planned_units": 10_000,
}
_EVENT: Final = {
    "event_id": "till-3-1742",
    "type": "purchase",
    "user": "ada",
    "item": "i3",
    "time": 1_795_280_128_315,
    "quantity": 1.0,
}
_LISTED: Final = {
    "item": "i3",
    "title": "Green tea",
    "category": "tea",
    "brand": "own",
    "price": 4.5,
    "stock": 12,
    "attributes": {"organic": True},
    "added_ms": 1_795_280_125_660,
}
_EXPLAINED: Final = {
    "item": "i3",
    "title": "Green tea",
    "score": 6.51,
    "above": 4.87,
    "because": [
        {
            "kind": "event",
            "effect": 5.43,
            "text": "You bought “Green tea” on 2026-11-21.",
            "item": "i3",
            "type": "purchase",
            "count": 1,
            "time": "2026-11-21T16:55:28+00:00",
        }
    ],
    "voices": [{"kind": "habits", "effect": 4.77, "text": "You bought it once."}],
}

ANSWERS: Final[dict[tuple[str, str], Any]] = {
    ("POST", "/v1/recommendations/promotions"): {
        **_ABOUT,
        "promotions": [
            {
                "name": "tea-week",
                "title": "A week of tea",
                "score": 2.25,
                "data": {"banner": "/img/tea.webp"},
                "items": [_TEA],
            }
        ],
    },
    ("POST", "/v1/similar"): {**_ABOUT, "items": [_TEA]},
    ("POST", "/v1/related"): {**_ABOUT, "items": [_TEA]},
    ("POST", "/v1/trending"): _TRENDING,
    ("GET", "/v1/trending"): _TRENDING,
    ("POST", "/v1/explanations"): {**_ABOUT, "items": [_EXPLAINED]},
    ("POST", "/v1/suggest"): {
        "suggestions": [{"text": "green tea", "kind": "query"}],
        "items": [{**_TEA, "price": 4.5, "category": "tea", "brand": "own"}],
    },
    ("POST", "/v1/events"): {"added": 1, "duplicates": 0},
    ("POST", "/v1/events/stream"): {
        "added": 2,
        "duplicates": 0,
        "rejected": 1,
        "reasons": [{"line": 3, "reason": "item i99 is not listed"}],
    },
    ("POST", "/v1/events/read"): {"events": [_EVENT], "next": "ZQAAAAAAAAAS", "more": False},
    ("POST", "/v1/items"): {"changed": 1},
    ("PATCH", "/v1/items"): {"changed": 1},
    ("POST", "/v1/items/remove"): {"changed": 1},
    ("POST", "/v1/items/read"): {"items": [_LISTED], "missing": [], "next": None, "more": False},
    ("POST", "/v1/sessions/merge"): {"moved": 3},
    ("POST", "/v1/users/erase"): {"known": True, "events": 8, "clean": True},
    ("GET", "/v1/scenarios"): {"scenarios": [_SCENARIO]},
    ("POST", "/v1/scenarios"): {"name": "home", "unknown": ["margin"]},
    ("POST", "/v1/scenarios/remove"): {"name": "home", "built_in": True},
    ("GET", "/v1/promotions"): {"promotions": [_PROMOTION]},
    ("POST", "/v1/promotions"): {"name": "tea-week", "unknown": []},
    ("POST", "/v1/promotions/remove"): {"name": "tea-week"},
    ("GET", "/v1/experiments"): {"experiments": [_EXPERIMENT]},
    ("POST", "/v1/experiments"): {"name": "diverse-home", "state": "running"},
    ("POST", "/v1/experiments/stop"): {"name": "diverse-home", "state": "stopped"},
    ("POST", "/v1/experiments/remove"): {"name": "diverse-home"},
    ("GET", "/v1/synonyms"): {"synonyms": {"sofas": {"same": ["sofa", "couch"]}}},
    ("POST", "/v1/synonyms"): {"name": "sofas"},
    ("POST", "/v1/synonyms/remove"): {"name": "sofas"},
    ("GET", "/v1/search/index"): _INDEX,
    ("POST", "/v1/search/rebuild"): {**_INDEX, "building": True},
}
