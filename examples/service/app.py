"""A server of one model: `MODEL=exported uvicorn app:app`, then post a photo to /predict."""

import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Query, UploadFile
from PIL import Image
from pixels import pixels

folder = Path(os.environ.get("MODEL", "exported"))
rule = json.loads((folder / "preprocess.json").read_text("utf-8"))
session = onnxruntime.InferenceSession(folder / "model.onnx")
names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
app = FastAPI()


@app.post("/predict")
def predict(photo: UploadFile, top: Annotated[int, Query(ge=1)] = 3) -> list[tuple[str, float]]:
    """Answers the most probable classes of a photo, best first."""
    try:
        image = pixels(Image.open(photo.file), rule)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(422, "photo must be an image that can be read") from error
    (found,) = session.run(None, {"images": image[None]})[0]
    return [(names[k], float(found[k])) for k in np.argsort(-found)[:top]]
