{% macro lake_files(table, columns) %}
{#- A folder of Parquet files of the lake, as a source; no rows where the folder has no files, which DuckDB refuses to read. -#}
{%- set relation = source('lake', table) -%}
{%- set count = run_query("select count(*) from glob('" ~ env_var('EVERGREEN_RAW') ~ "/" ~ table ~ "/*.parquet')") -%}
{%- if execute and count[0][0] == 0 -%}
(select {% for column in columns %}cast(null as {{ 'bigint' if column == 'line' else 'varchar' }}) as {{ column }}{{ ', ' if not loop.last }}{% endfor %} where false)
{%- else -%}
{{ relation }}
{%- endif -%}
{% endmacro %}
