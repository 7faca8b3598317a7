{% test never_null(model, columns, entities=false) %}
{# One pass over several columns, and the domain's entities; fails for each column that has nulls. #}
{%- set filled = columns + (var('entities') if entities else []) %}

with nulls as (

    select {% for column in filled %}count(*) - count({{ column }}) as {{ column }}{{ ', ' if not loop.last }}{% endfor %}
    from {{ model }}

)

{% for column in filled %}
select '{{ column }}' as column_name, {{ column }} as nulls from nulls where {{ column }} > 0
{{ 'union all' if not loop.last }}
{% endfor %}

{% endtest %}
