-- depends_on: {{ ref('changed_records') }}
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='record_id') }}

with

records as not materialized (

    select * from {{ ref('stg_records') }}
    where status = 'valid'
    {% if is_incremental() %}
        and record_id in (select record_id from {{ ref('changed_records') }})
    {% endif %}

),

mapped as (

    select {{ var('label_fields') | join(', ') }}, received_at, label from {{ ref('mapped_labels') }}

),

-- Few records have several versions: only those are sorted.
several as (

    select record_id from records
    group by record_id
    having count(*) > 1

),

superseded as (

    select
        position,
        min(known_at) over (
            partition by record_id order by position
            rows between 1 following and unbounded following
        ) as known_until
    from records
    where record_id in (select record_id from several)

),

final as (

    select
        records.record_id,
        records.known_at,
        superseded.known_until,
        records.received_at,
        records.text,
        {% for field in var('entities') + var('request') -%}
        records.{{ field }},
        {% endfor -%}
        mapped.label,
        records.label_known_at,
        case
            when records.label_known_at is null then 'no-label-yet'
            when mapped.label is null then 'unmapped-label'
        end as label_reason,
        records.object_id,
        records.line
    from records
    left join superseded
        on records.position = superseded.position
    left join mapped
        on records.label_known_at is not null
        and records.received_at = mapped.received_at
        {% for field in var('label_fields') -%}
        and records.{{ field }} is not distinct from mapped.{{ field }}
        {% endfor %}
    where superseded.known_until is null
        or superseded.known_until > records.known_at

)

select * from final
