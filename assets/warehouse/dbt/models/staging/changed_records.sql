{{ config(materialized='table') }}
{%- set counted = counted_objects() %}

with

records as (

    select record_id, position, object_id, known_at{{ listed(var('entities')) }} from {{ ref('stg_records') }}
    where status = 'valid'

),

brought as (

    select distinct record_id from records
    {% if counted %}
    where object_id not in (select object_id from {{ counted }})
    {% else %}
    where false
    {% endif %}

)

select
    record_id,
    position,
    object_id,
    {{ 'object_id not in (select object_id from ' ~ counted ~ ')' if counted else 'true' }} as is_new,
    known_at
    {{- listed(var('entities')) }}
from records
where record_id in (select record_id from brought)
