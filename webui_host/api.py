"""Routes of the web UIs: what adapters there are, and what is in one. They change nothing but one, which ends a training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..host_shared.answers import Refusal, table_answer
from ..sparsedict_core.errors import SparseDictError
from . import files, training

LIST, INSPECT, REFRESH, THUMBNAIL = (f"/sparsedict/v1/{name}" for name in ("list", "inspect", "refresh", "thumbnail"))

#: What the browser may load: the panel, and the parts that it shares with ComfyUI.
ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {(path.parent.name, path.name): path for folder in ("web", "webui_host") for path in (ROOT / folder).glob("*.js")}


def register(app: Any) -> None:
    """Add the routes to the host's FastAPI app."""
    from fastapi import HTTPException, Response

    def path_of(name: str) -> Any:
        try:
            return files.find(name, files.default_folder())
        except SparseDictError as error:
            raise HTTPException(404, str(error)) from error

    def list_adapters() -> list[dict[str, Any]]:
        return [{"name": name, "bytes": path.stat().st_size} for name, path in files.names(files.default_folder()).items()]

    def inspect(name: str, greedy: bool = False) -> Any:
        path = path_of(name)
        try:
            _, body = table_answer(path, {"name": name, "hash": files.short_hash(path)}, greedy, read=files.read)
        except Refusal as refusal:
            raise HTTPException(refusal.status, str(refusal)) from refusal
        return Response(body, media_type="application/json")

    def thumbnail(name: str) -> Any:
        from ..pictures.charts import importance_thumbnail

        path = path_of(name)
        try:
            picture = importance_thumbnail(files.read(path))
        except SparseDictError as error:
            raise HTTPException(422, str(error)) from error
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "max-age=60"})

    def script(folder: str, name: str) -> Any:
        path = SCRIPTS.get((folder, name))
        if path is None:
            raise HTTPException(404, "there is no such script.")
        return Response(path.read_bytes(), media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    def train() -> Any:
        return training.STATE.job()

    def keep() -> dict[str, bool]:
        if not training.STATE.ask_to_keep():
            raise HTTPException(409, "no training is going on, so there is nothing to stop.")
        return {"stopping": True}

    def preview() -> Any:
        picture = training.STATE.preview()
        if picture is None:
            raise HTTPException(404, "there is no preview yet.")
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    app.add_api_route("/sparsedict/v1/train", train, methods=["GET"])
    app.add_api_route("/sparsedict/v1/train/keep", keep, methods=["POST"])
    app.add_api_route("/sparsedict/v1/train/preview", preview, methods=["GET"], response_class=Response)
    app.add_api_route("/sparsedict/v1/js/{folder}/{name}", script, methods=["GET"], response_class=Response)
    app.add_api_route(LIST, list_adapters, methods=["GET"])
    app.add_api_route(REFRESH, list_adapters, methods=["POST"])
    app.add_api_route(INSPECT, inspect, methods=["GET"], response_class=Response)
    app.add_api_route(THUMBNAIL, thumbnail, methods=["GET"], response_class=Response)
