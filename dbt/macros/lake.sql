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


{% macro stage_marts(results) %}
{#- After a build in which every mart was built and no test failed, write the marts where the audit expects them. -#}
{%- set marts = {
    'company_daily': 'company, event_timestamp',
    'state_daily': 'state, event_timestamp',
    'labels': 'complaint_id, known_at',
    'quarantined_complaints': 'object_key, line, reason',
    'fct_complaints': 'complaint_id, known_at',
    'record_counts': 'object_key',
} -%}
{%- if execute and flags.WHICH == 'build' -%}
{%- set built = results | selectattr('node.resource_type', 'equalto', 'model') | map(attribute='node.name') | list -%}
{%- set bad = results | rejectattr('status', 'in', ['success', 'pass', 'warn']) | list -%}
{%- if bad | length == 0 and marts.keys() | reject('in', built) | list | length == 0 -%}
{%- for mart, order in marts.items() %}
copy (select * from {{ target.schema }}.{{ mart }} order by {{ order }})
    to '{{ env_var("EVERGREEN_STAGED") }}/{{ mart }}.parquet' (format parquet, compression zstd);
{%- endfor %}
{%- endif -%}
{%- endif -%}
{% endmacro %}
