{% macro earlier(model) %}
{#- The table of a model from earlier builds; none in an empty warehouse, until this build creates it. -#}
{{ return(adapter.get_relation(target.database, target.schema, model) if execute else none) }}
{% endmacro %}


{% macro counted_objects() %}
{#- The objects counted by the last build. -#}
{{ return(earlier('record_counts')) }}
{% endmacro %}


{% macro new_objects() %}
{#- The objects of the lake that no build has counted yet: none of their records are in the warehouse. -#}
{%- set counted = counted_objects() -%}
(select * replace (strptime(known_from, {{ strings(var('as_of_formats')) }}) as known_from) from {{ source('lake', 'objects') }}{% if counted %} where object_id not in (select object_id from {{ counted }}){% endif %})
{%- endmacro %}


{% macro new_files(table, columns) %}
{#-
    The rows of the new objects' files in a folder of the lake. There may be none, and DuckDB refuses an empty list of
    files. A field that the domain gained after an object landed is null there.
-#}
{%- set relation = source('lake', table) -%}
{%- set counted = counted_objects() -%}
{%- set files = "glob('" ~ env_var('EVERGREEN_RAW') ~ "/" ~ table ~ "/*.parquet')" -%}
{%- if counted -%}
{%- set files = files ~ " where parse_filename(file, true) not in (select object_id from " ~ counted ~ ")" -%}
{%- endif -%}
{%- set paths = run_query("select file from " ~ files ~ " order by file") -%}
{%- if execute and paths | length == 0 -%}
(select {% for column in columns %}cast(null as {{ 'bigint' if column == 'line' else 'varchar' }}) as {{ column }}{{ ', ' if not loop.last }}{% endfor %} where false)
{%- elif execute -%}
{%- set listed -%}
[{% for row in paths %}'{{ row[0] | replace("'", "''") }}'{{ ', ' if not loop.last }}{% endfor %}]
{%- endset -%}
{%- set landed = run_query("select distinct name from parquet_schema(" ~ listed ~ ")").columns[0].values() -%}
(select *{% for column in columns if column not in landed %}, cast(null as varchar) as {{ column }}{% endfor %} from {{ "read_parquet(" ~ listed ~ ", union_by_name = true)" if counted else relation }})
{%- else -%}
{{ relation }}
{%- endif -%}
{% endmacro %}
