"""What a machine that watches this one asks."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.shop import Shop


def routes(shop: Shop) -> APIRouter:
    """Routes without a shopper."""
    router, service = lean_router(), shop.service

    @router.get("/healthz", **spec(dict[str, str], permission=None, answer={"status": "ok"}, sheds=False))
    async def alive() -> Response:
        """The process answers."""
        return json_response({"status": "ok"})

    @router.get(
        "/readyz",
        **spec(
            dict[str, object],
            permission=None,
            problems=(503,),
            answer={"ready": True, "release": {"version": 3, "sha256": "5f3c…"}},
            sheds=False,
        ),
    )
    async def ready() -> Response:
        """The store can be read and something can be answered."""
        service.store.items_mark()
        release = service.loaded.release
        named = {"version": release.version, "sha256": release.sha256} if release else None
        tills = {} if shop.tills is None else {"tills": "not heard" if shop.tills.trouble else "heard"}
        memory = {} if shop.memory is None else {"memory": shop.memory.footprint().to_json()}
        return json_response({"ready": True, "release": named, **tills, **memory})

    @router.get(
        "/metrics", **spec(str, permission=Permission.QUERY, answer="hanse_edge_release_version 3.0\n", sheds=False)
    )
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return router
