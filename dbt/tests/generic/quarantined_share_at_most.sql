{% test quarantined_share_at_most(model, limit_from) %}
{# Fails when more than a configured share of what landed is quarantined. #}

select sum(quarantined) as quarantined, sum(landed) as landed
from {{ model }}
having sum(quarantined) > {{ env_var(limit_from, '0') }} * sum(landed)

{% endtest %}
