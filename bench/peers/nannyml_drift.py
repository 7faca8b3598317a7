"""NannyML's univariate drift as it comes, run by bench/doses.py in an environment of its own.

nannyml_drift.py FOLDER ROWS: compares every ROWS rows of windows.parquet with train.parquet, both in FOLDER, and prints
as JSON in how many columns each is in alert.
"""

import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # it reports every call to its maker otherwise

import pandas as pd
from nannyml import UnivariateDriftCalculator

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
train, windows = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "windows"))
calculator = UnivariateDriftCalculator(column_names=list(train.columns), chunk_size=rows).fit(train)
found = calculator.calculate(windows).filter(period="analysis").to_df()
print(json.dumps(found.xs("alert", axis=1, level=-1).sum(axis=1).tolist()))
