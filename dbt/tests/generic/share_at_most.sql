{% test share_at_most(model, condition, limit_from) %}
{# Fails when more than a configured share of the rows meets the condition. #}

select hits, total
from (
    select count(*) as total, count(case when {{ condition }} then 1 end) as hits
    from {{ model }}
) as counts
where hits > {{ env_var(limit_from, '0') }} * total

{% endtest %}
