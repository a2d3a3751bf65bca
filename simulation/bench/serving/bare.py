"""``python -m simulation.bench.serving.bare MODEL PORT ROWS``: a raw ASGI app around one `session.run`, nothing else.

What a shop would have without Hanse: it sends rows, it gets rows. No store, no user, no filter, no fusion.
"""

import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
import uvloop

_HEADERS = [(b"content-type", b"application/json")]
K = 100


def open_session(model: str) -> Any:
    """One thread, as an edge does."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def build(session: Any) -> Any:
    """The app."""
    asked = np.array([K], np.int64)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        answer = b"{}"
        if body:
            history = np.array([orjson.loads(body)["history"]], np.int64)
            items, scores = session.run(["items", "scores"], {"history": history, "k": asked})
            pairs = zip(items[0, :10].tolist(), scores[0, :10].tolist(), strict=True)
            answer = orjson.dumps({"items": [{"item": item, "score": score} for item, score in pairs]})
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    """Serve until ended."""
    model, port = sys.argv[1], int(sys.argv[2])
    config = uvicorn.Config(
        build(open_session(model)),
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
    uvloop.install()
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
