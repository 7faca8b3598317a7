"""NannyML's confidence-based performance estimation, run by bench/drift.py in an environment of its own.

nannyml_cbpe.py FOLDER ROWS: estimates the accuracy of every ROWS rows of windows.parquet by evaluated.parquet, both in
FOLDER, and prints them as JSON.
"""

import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # it reports every call to its maker otherwise

import pandas as pd
from nannyml import CBPE

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
evaluated, windows = (pd.read_parquet(folder / f"{name}.parquet") for name in ("evaluated", "windows"))
estimator = CBPE(
    y_pred_proba={name.removeprefix("p_"): name for name in evaluated if name.startswith("p_")},
    y_pred="predicted",
    y_true="label",
    problem_type="classification_multiclass",
    metrics=["accuracy"],
    chunk_size=rows,
)
estimator.fit(evaluated)
found = estimator.estimate(windows.drop(columns="label")).filter(period="analysis").to_df()
print(json.dumps(found["accuracy"]["value"].tolist()))
