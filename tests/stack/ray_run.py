"""A Dagster run of the asset `challenger`, in a process of its own: `python -m tests.stack.ray_run AS_OF CONFIG`."""

import json
import sys

import dagster as dg

from assets.resources import Evergreen
from assets.training.definitions import challenger

if __name__ == "__main__":
    as_of, config = sys.argv[1], json.loads(sys.argv[2])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [as_of])
        done = dg.materialize(
            [challenger],
            partition_key=as_of,
            resources={"evergreen": Evergreen(profile="quick")},
            run_config={"ops": {"challenger": {"config": config}}},
            instance=instance,
            raise_on_error=False,
        )
    sys.exit(0 if done.success else 1)
