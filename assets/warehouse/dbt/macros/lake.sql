{% macro earlier(model) %}
{#- What earlier builds have made of a model; none in a build of an empty warehouse, before it is made. -#}
{{ return(adapter.get_relation(target.database, target.schema, model) if execute else none) }}
{% endmacro %}


{% macro counted_objects() %}
{#- The objects that the last build has counted, as it left them. -#}
{{ return(earlier('record_counts')) }}
{% endmacro %}


{% macro new_objects() %}
{#- The objects of the lake that no build has counted yet. All of what they bring is added; nothing of it is there. -#}
{%- set counted = counted_objects() -%}
(select * from {{ source('lake', 'objects') }}{% if counted %} where object_id not in (select object_id from {{ counted }}){% endif %})
{%- endmacro %}


{% macro new_files(table, columns) %}
{#-
    The rows of the new objects' files in a folder of the lake, which may have none: DuckDB refuses to read no files.
    A field that the domain did not have yet when an object landed is null there.
-#}
{%- set relation = source('lake', table) -%}
{%- set counted = counted_objects() -%}
{%- set files = "glob('" ~ env_var('EVERGREEN_RAW') ~ "/" ~ table ~ "/*.parquet')" -%}
{%- if counted -%}
{%- set files = files ~ " where parse_filename(file, true) not in (select object_id from " ~ counted ~ ")" -%}
{%- endif -%}
{%- set found = run_query("select file from " ~ files ~ " order by file") -%}
{%- if execute and found | length == 0 -%}
(select {% for column in columns %}cast(null as {{ 'bigint' if column == 'line' else 'varchar' }}) as {{ column }}{{ ', ' if not loop.last }}{% endfor %} where false)
{%- elif execute -%}
{%- set listed -%}
[{% for row in found %}'{{ row[0] | replace("'", "''") }}'{{ ', ' if not loop.last }}{% endfor %}]
{%- endset -%}
{%- set landed = run_query("select distinct name from parquet_schema(" ~ listed ~ ")").columns[0].values() -%}
(select *{% for column in columns if column not in landed %}, cast(null as varchar) as {{ column }}{% endfor %} from {{ "read_parquet(" ~ listed ~ ", union_by_name = true)" if counted else relation }})
{%- else -%}
{{ relation }}
{%- endif -%}
{% endmacro %}
