"""The champion behind a plain FastAPI, as one writes it in an afternoon: the same model and features, a request a call.

python bench/peers/plain_fastapi.py PORT

It has no keys, no limits, no batches, follows no alias and records nothing.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pandas as pd
import uvicorn
from fastapi import FastAPI

from assets.features.serving import OnlineReader
from assets.home import Home
from assets.ingestion.inputs import model_inputs
from assets.ingestion.records import make_record
from assets.scoring.champion import Champion
from assets.scoring.score import score_rows
from assets.settings import load_settings

home, settings = Home.from_environment(), load_settings("quick")
champion, reader, app = Champion.load(home, settings.scoring), OnlineReader.open(home), FastAPI()


@app.post("/v1/predict")
def predict(body: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, Any]]]:
    fields = home.domain.source.fields
    records = [make_record(home.domain, [row.get(name, "") for name in fields], 1) for row in body["records"]]
    rows = pd.DataFrame([model_inputs(home.domain, record) for record in records], dtype=object)  # type: ignore[arg-type]
    scored = score_rows(champion.model, reader.features(rows), champion.version.version, settings.scoring)
    return {"answers": scored.assign(record_id=rows["record_id"]).to_dict("records")}


@app.get("/readyz")
def readyz() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
