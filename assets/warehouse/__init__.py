"""From raw records to marts: the dbt project in `dbt/`, and what it is told."""
