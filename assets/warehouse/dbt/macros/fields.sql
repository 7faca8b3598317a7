{% macro to_timestamp(column, time) %}
{#-
    When something was, in UTC, or null when the text does not say it: in ISO 8601, or as one of the field's formats. A
    day is its midnight.
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
{#- Whether a time is one that the domain's records and their timestamps can have; null when there is none. -#}
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
{#- The record as a line of CSV, every field quoted. -#}
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
{#- Whether a record has anything to read its label from. -#}
({% for field in var('label_fields') %}{{ rows }}.{{ field }} is not null{{ ' or ' if not loop.last }}{% endfor %})
{%- endmacro %}


{% macro label_instant() %}
{#- When a judged record's label became known, as the source says it or, by default, some days after the record. -#}
{%- set days = var('label_known').after_days -%}
{%- if days is none -%}
judged.label_known_at
{%- else -%}
coalesce(judged.label_known_at, judged.received_at + interval {{ days }} day)
{%- endif -%}
{%- endmacro %}
