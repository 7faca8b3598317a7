"""From raw records to marts: the dbt project in `dbt/`, how it is composed, run and staged."""
