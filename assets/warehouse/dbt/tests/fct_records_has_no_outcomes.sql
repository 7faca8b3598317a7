-- Outcomes may not be columns here: there are only the columns that the model and the domain name.
{%- set own = graph.nodes['model.evergreen.fct_records'].columns.keys() | list if execute else [] %}

select column_name
from information_schema.columns
where table_name = '{{ ref("fct_records").identifier }}'
    and column_name not in ('{{ (own + var("entities") + var("request")) | join("', '") }}')
