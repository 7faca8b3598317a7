{% macro to_timestamp(column, time) %}
{#-
    A text as an instant in UTC, from ISO 8601 or one of the field's formats; null when it is neither. A day becomes its
    midnight.
-#}
{%- if time.type == 'day' -%}
try_strptime({{ column }}, {{ strings(['%Y-%m-%d'] + time.formats) }})
{%- elif time.formats -%}
coalesce(
    try_cast({{ column }} as timestamptz), cast(try_strptime({{ column }}, {{ strings(time.formats) }}) as timestamptz)
) at time zone 'UTC'
{%- else -%}
try_cast({{ column }} as timestamptz) at time zone 'UTC'
{%- endif -%}
{%- endmacro %}


{% macro possible(column) %}
{#- Whether a time is possible for the domain's records and fits a timestamp; null when there is none. -#}
{{ column }} >= timestamp '{{ var("first_possible_day") }}' and {{ column }} < timestamp '{{ var("end_of_time") }}'
{%- endmacro %}


{% macro joined_text() %}
{#- A record's text: a line for each of its fields that is not empty. -#}
{%- set fields = var('text') -%}
{%- if fields | length == 1 -%}
records.{{ fields[0] }}
{%- else -%}
nullif(concat_ws(chr(10), {% for field in fields %}records.{{ field }}{{ ', ' if not loop.last }}{% endfor %}), '')
{%- endif -%}
{%- endmacro %}


{% macro csv_line(columns) %}
{#- The record as a line of CSV, with every field quoted. -#}
concat_ws(','{% for column in columns %}, '"' || replace(coalesce(records.{{ column }}, ''), '"', '""') || '"'{% endfor %})
{%- endmacro %}


{% macro strings(values) %}
{#- A list of strings. -#}
[{% for value in values %}{{ string(value) }}{{ ', ' if not loop.last }}{% endfor %}]
{%- endmacro %}


{% macro listed(columns) %}
{#- More columns of a select. -#}
{% for column in columns %}, {{ column }}{% endfor %}
{%- endmacro %}


{% macro string(value) %}
{#- A string in quotes. -#}
'{{ value | replace("'", "''") }}'
{%- endmacro %}


{% macro has_label_value(rows) %}
{#- Whether a record has a value in any field of its label. -#}
({% for field in var('label_fields') %}{{ rows }}.{{ field }} is not null{{ ' or ' if not loop.last }}{% endfor %})
{%- endmacro %}


{% macro label_instant() %}
{#- When a judged record's label became known: when the source says, or by default some days after the record. -#}
{%- set days = var('label_known').after_days -%}
{%- if days is none -%}
judged.label_known_at
{%- else -%}
coalesce(judged.label_known_at, judged.received_at + interval {{ days }} day)
{%- endif -%}
{%- endmacro %}
