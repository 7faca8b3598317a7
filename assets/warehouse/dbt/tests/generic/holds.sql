{% test holds(model, expression) %}
{# Counts the rows for which the expression is not true; null is not true. Only a count: rows may hold people's text. #}
{{ config(fail_calc='coalesce(sum(failures), 0)') }}

select count(*) as failures
from {{ model }}
where not coalesce({{ expression }}, false)

{% endtest %}
