"""`hanse-edge storefront`: the page on a port of its own, for people at this machine."""

from pathlib import Path

from edge import asking
from edge.children import end_with_parent
from edge.client import Edge
from edge.settings import EdgeSettings
from edge.storefront.window import users_of
from protocol.errors import BadInputError


def serve(directory: Path, settings: EdgeSettings, *, port: int, child: bool = False) -> None:
    """Show the page until ended. It listens on the loopback address alone: whoever sees it may be any user.

    Args:
        child: of `hanse-edge serve`, with which it ends.

    Raises:
        BadInputError: NiceGUI is not installed, this folder keeps no API key, or the store is damaged.
    """
    try:
        from nicegui import app, ui  # noqa: PLC0415 - an extra of its own

        from edge.storefront.page import build  # noqa: PLC0415
    except ImportError as error:
        raise BadInputError("the storefront is not installed", advice="pip install 'hanse[storefront]'") from error
    if child:
        end_with_parent()
    url = f"http://{settings.serving.host}:{settings.serving.port}"
    edge = Edge(url, asking.read_key(directory))
    store = directory / "store.db"
    build(settings.site.name, edge, lambda: users_of(store))
    app.on_shutdown(edge.close)
    ui.run(
        host="127.0.0.1",
        port=port,
        title=settings.site.name,
        favicon="🛒",
        reload=False,
        show=False,
        show_welcome_message=False,
    )
