-- depends_on: {{ ref('changed_records') }}
{{ config(materialized='ephemeral') }}

select distinct {{ var('label_fields') | join(', ') }}, received_at from {{ ref('stg_records') }}
where status = 'valid' and label_known_at is not null
{% if earlier('fct_records') %}
    and record_id in (select record_id from {{ ref('changed_records') }})
{% endif %}
