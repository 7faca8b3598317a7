{% test a_label(model, column_name) %}
{#- Only labels that the domain names. -#}
select {{ column_name }} from {{ model }}
where {{ column_name }} not in ('{{ var("labels") | join("', '") }}')
{% endtest %}
