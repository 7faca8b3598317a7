{% macro to_day(column) %}
{#- A day at midnight, or null when the text names none: the export's ISO dates and the US dates of its older editions. -#}
try_strptime({{ column }}, ['%Y-%m-%d', '%m/%d/%Y'])
{%- endmacro %}


{% macro possible(column) %}
{#- Whether a day lies in the time that the bureau and its timestamps have; null when there is no day. -#}
{{ column }} between timestamp '{{ var("first_possible_day") }}' and timestamp '{{ var("last_possible_day") }}'
{%- endmacro %}


{% macro csv_line(columns) %}
{#- The record as a line of CSV, every field quoted. -#}
concat_ws(','{% for column in columns %}, '"' || replace(coalesce({{ column }}, ''), '"', '""') || '"'{% endfor %})
{%- endmacro %}


{% macro record_fields() %}
{{ return([
    'date_received', 'product', 'sub_product', 'issue', 'sub_issue', 'narrative', 'company_public_response', 'company',
    'state', 'zip_code', 'tags', 'consent', 'channel', 'date_sent_to_company', 'company_response', 'timely_response',
    'disputed', 'complaint_id',
]) }}
{% endmacro %}


{% macro all_labels() %}
{#- What a record can be labelled with, by configs/domain.yaml. -#}
{{ return(env_var('EVERGREEN_LABELS').split(',')) }}
{% endmacro %}
