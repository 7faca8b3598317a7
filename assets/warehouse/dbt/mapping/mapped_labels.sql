{%- set field = var('label_fields')[0] %}

with

names as (

    select lower(trim(name)) as name, arg_min(label, place) as label
    from (
        values
        {% for label, display in var('labels').items() -%}
        ('{{ label }}', '{{ label }}', 0), ({{ string(display) }}, '{{ label }}', 1){{ ', ' if not loop.last }}
        {% endfor %}
    ) as known (name, label, place)
    group by 1

)

select label_values.{{ field }}, label_values.received_at, names.label
from {{ ref('label_values') }} as label_values
inner join names
    on lower(trim(label_values.{{ field }})) = names.name
