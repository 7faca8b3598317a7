{% test never_null(model, columns) %}
{# One pass for several columns; fails with each column that has nulls. #}

with nulls as (

    select {% for column in columns %}count(*) - count({{ column }}) as {{ column }}{{ ', ' if not loop.last }}{% endfor %}
    from {{ model }}

)

{% for column in columns %}
select '{{ column }}' as column_name, {{ column }} as nulls from nulls where {{ column }} > 0
{{ 'union all' if not loop.last }}
{% endfor %}

{% endtest %}
