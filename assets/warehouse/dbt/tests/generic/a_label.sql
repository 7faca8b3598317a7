{% test a_label(model, column_name) %}
{#- Allows only labels that the domain names. -#}
select {{ column_name }} from {{ model }}
where {{ column_name }} not in ('{{ var("labels") | join("', '") }}')
{% endtest %}
