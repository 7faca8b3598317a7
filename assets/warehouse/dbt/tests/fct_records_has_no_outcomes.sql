-- What is decided later may not be a column here: the columns are those that the model and the domain name, and no others.
{%- set own = graph.nodes['model.evergreen.fct_records'].columns.keys() | list if execute else [] %}

select column_name
from information_schema.columns
where table_name = '{{ ref("fct_records").identifier }}'
    and column_name not in ('{{ (own + var("entities") + var("request")) | join("', '") }}')
