"""What the shop sells, from its stock-keeping to the books and back: listed, changed in part, taken off."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, StringConstraints, Tag

from edge.api.event_bodies import Id
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.records import cursors, items
from edge.records.events import LONGEST_TEXT, Item, check_item
from edge.records.store import Store
from edge.shop import Shop
from protocol.errors import BadInputError

MOST_ITEMS = 10_000
_LARGEST = 16 << 20
_MOST_STOCK = 1 << 53
_Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Stock = Annotated[int, Field(ge=0, lt=_MOST_STOCK)]
_ITEM = {"item": "i1", "title": "Green tea", "category": "tea", "brand": "own", "price": 4.5, "stock": 12}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemIn(_Body):
    """One item; whatever was known of it is replaced."""

    item: Id
    title: _Text = ""
    category: _Text = ""
    brand: _Text = ""
    price: _Price | None = Field(default=None, description="In the shop's currency.")
    stock: _Stock | None = Field(default=None, description="Pieces on the shelf; missing: not counted, always there.")
    attributes: dict[str, JsonValue] = Field(default={}, description="Whatever else the shop knows, by name.")


class ItemsIn(_Body):
    """Several items, listed together or not at all."""

    items: list[ItemIn] = Field(max_length=MOST_ITEMS)


class ItemPatch(_Body):
    """What has changed of one item. Of `attributes` those that are named change; null takes one away."""

    item: Id
    title: _Text = ""
    category: _Text = ""
    brand: _Text = ""
    price: _Price | None = None
    stock: _Stock | None = None
    attributes: dict[str, JsonValue] = {}


class ItemPatches(_Body):
    """Changes of several items, made together or not at all."""

    items: list[ItemPatch] = Field(max_length=MOST_ITEMS)


class ItemNames(_Body):
    """Which items."""

    items: list[Id] = Field(max_length=MOST_ITEMS)


class ItemsReadIn(_Body):
    """These items, or all that are listed, page by page."""

    items: list[Id] | None = Field(default=None, max_length=cursors.MOST)
    after: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="`next` of the answer before.")
    limit: int = Field(default=100, ge=1, le=cursors.MOST)


class ListedOut(BaseModel):
    """How many items were listed or changed; all of it is on disk."""

    changed: int


class ItemsReadOut(BaseModel):
    """Items as they can be sent again, and when each was listed first."""

    items: list[dict[str, Any]]
    missing: list[str] = Field(description="Of those asked for, what is not listed.")
    next: str | None = Field(description="Send it as `after` to go on; null where certain items were asked for.")
    more: bool


def _kind(body: Any) -> str:
    return (
        "several" if isinstance(body, ItemsIn | ItemPatches) or (isinstance(body, dict) and "items" in body) else "one"
    )


_Listed = Annotated[Annotated[ItemsIn, Tag("several")] | Annotated[ItemIn, Tag("one")], Discriminator(_kind)]
_Changed = Annotated[Annotated[ItemPatches, Tag("several")] | Annotated[ItemPatch, Tag("one")], Discriminator(_kind)]


def routes(shop: Shop) -> APIRouter:
    """Routes that list items and read them back."""
    router, service = lean_router(), shop.service

    async def changed(change: Callable[[Store], int]) -> Response:
        count = await service.change(change)
        service.follow_items()  # the next answer knows them; of very many, an answer in half a second
        return json_response({"changed": count})

    @router.post(
        "/v1/items",
        **spec(ListedOut, problems=(507,), example=_ITEM, permission=Permission.INGEST, largest_body=_LARGEST),
    )
    async def put(body: _Listed) -> Response:
        """List an item, or several as `{"items": [...]}`; whatever was known of them is replaced."""
        given = [_item(one) for one in (body.items if isinstance(body, ItemsIn) else [body])]
        now_ms = service.now_ms()
        return await changed(lambda store: store.put_items(given, now_ms=now_ms))

    @router.patch(
        "/v1/items",
        **spec(
            ListedOut,
            problems=(404, 507),
            example={"item": "i1", "price": 3.9, "stock": 7},
            permission=Permission.INGEST,
            largest_body=_LARGEST,
        ),
    )
    async def patch(body: _Changed) -> Response:
        """Change the price, the stock or anything else of listed items; what is not named stays as it is."""
        given = [(str(one.item), _changes(one)) for one in (body.items if isinstance(body, ItemPatches) else [body])]
        return await changed(lambda store: store.patch_items(given))

    @router.post(
        "/v1/items/remove",
        **spec(
            ListedOut,
            problems=(404, 507),
            example={"items": ["i1"]},
            permission=Permission.INGEST,
            largest_body=_LARGEST,
        ),
    )
    async def remove(body: ItemNames) -> Response:
        """Take items off the list: they are not offered any more. What was bought and seen of them stays known."""
        names = [str(name) for name in body.items]
        return await changed(lambda store: store.remove_items(names))

    @router.post("/v1/items/read", **spec(ItemsReadOut, permission=Permission.QUERY, example={"items": ["i1"]}))
    async def read(body: ItemsReadIn) -> Response:
        """Listed items: certain ones, or all of them page by page."""
        with service.store.reading() as db:
            if body.items is None:
                page = cursors.items(db, after=body.after, limit=body.limit)
                return json_response(
                    {"items": _entries(page.entries), "missing": [], "next": page.after, "more": page.more}
                )
            if body.after is not None:
                raise BadInputError(
                    "items and after are both given", advice="ask for certain items, or for all in turn"
                )
            names = list(dict.fromkeys(str(name) for name in body.items))
            known = items.listed(db, names)
        found = [known[name] for name in names if name in known]
        missing = [name for name in names if name not in known]
        return json_response({"items": _entries(found), "missing": missing, "next": None, "more": False})

    return router


def _item(given: ItemIn) -> Item:
    return check_item(Item(**{**dict(given), "item": str(given.item)}))


def _changes(given: ItemPatch) -> dict[str, Any]:
    return {name: getattr(given, name) for name in given.model_fields_set if name != "item"}


def _entries(found: Sequence[Item]) -> list[dict[str, Any]]:
    return [
        {
            "item": item.item,
            "title": item.title,
            "category": item.category,
            "brand": item.brand,
            "price": item.price,
            "stock": item.stock,
            "attributes": item.attributes,
            "added_ms": item.added_ms,
        }
        for item in found
    ]
